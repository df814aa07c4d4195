// The past of one container or the host: four charts over ten minutes, six hours or seven days.
"use strict";

const HOST_ID = "/";
const REFRESH_MS = { 600: 2000, 21600: 10000, 604800: 60000 };
const CHART = { width: 560, height: 120 };
const percentText = (value) => `${value.toFixed(value < 10 ? 2 : 1)} %`;
const rateText = (value) => `${bytes(value)}/s`;
const CHARTS = [
  { title: "CPU", least: 5, form: percentText, series: [["average", "cpu_percent"], ["highest", "cpu_percent_max"]] },
  { title: "Memory", least: 1 << 20, form: bytes, series: [["working set", "working_set_bytes"], ["highest usage", "memory_bytes_max"]] },
  { title: "Network", least: 1024, form: rateText, series: [["received", "rx_bytes_per_second"], ["sent", "tx_bytes_per_second"]] },
  { title: "Disk", least: 1024, form: rateText, series: [["read", "read_bytes_per_second"], ["written", "write_bytes_per_second"]] },
];
let shownId = HOST_ID;
let asking = null;

function svg(tag, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// A line through what is known; where nothing is, it is broken, and a value alone is a dot.
function line(values, top) {
  const across = CHART.width / Math.max(1, values.length - 1);
  const parts = [];
  values.forEach((value, index) => {
    if (value === null) return;
    const known = index > 0 && values[index - 1] !== null;
    const point = `${(index * across).toFixed(1)} ${(CHART.height - (value / top) * (CHART.height - 4) - 1).toFixed(1)}`;
    parts.push(`${known ? "L" : "M"}${point}${!known && (index + 1 === values.length || values[index + 1] === null) ? "h.1" : ""}`);
  });
  return parts.join("");
}

function moment(seconds, range) {
  const when = new Date(seconds * 1000);
  const clock = when.toTimeString().slice(0, range > 600 ? 5 : 8);
  return range > 86400 ? `${when.toLocaleDateString(undefined, { weekday: "short", day: "numeric" })} ${clock}` : clock;
}

function chart(kind, answer, range) {
  const figure = element("figure");
  const caption = element("figcaption");
  const columns = kind.series.map(([, column]) => answer.columns[column]);
  const known = columns.flat().filter((value) => value !== null);
  const top = Math.max(kind.least, ...known);
  const picture = svg("svg", { viewBox: `0 0 ${CHART.width} ${CHART.height}`, preserveAspectRatio: "none", role: "img" });
  const said = (at) => kind.series.map(([name], index) => {
    const value = columns[index][at];
    return `${name} ${value === null || value === undefined ? "–" : kind.form(value)}`;
  }).join(", ");
  // Without a pointer the numbers are of the whole range: averages, or the highest of what is a highest.
  const whole = kind.series.map(([name, column], index) => {
    const value = answer.averages[column] ?? Math.max(...columns[index].filter((one) => one !== null));
    return `${name} ${Number.isFinite(value) ? kind.form(value) : "–"}`;
  }).join(", ");
  const quiet = known.length ? whole : "nothing is known of this time";
  const numbers = element("span", quiet);
  caption.append(element("b", kind.title), numbers);
  picture.setAttribute("aria-label", `${kind.title}: ${quiet}, highest ${known.length ? kind.form(Math.max(...known)) : "–"}`);
  columns.forEach((values, index) => picture.append(svg("path", { d: line(values, top), class: index ? "second" : "first" })));
  const needle = svg("line", { y1: 0, y2: CHART.height, class: "needle", visibility: "hidden" });
  picture.append(needle);
  picture.addEventListener("pointermove", (event) => {
    const share = event.offsetX / picture.clientWidth;
    const at = Math.min(answer.times.length - 1, Math.max(0, Math.round(share * (answer.times.length - 1))));
    needle.setAttribute("x1", share * CHART.width);
    needle.setAttribute("x2", share * CHART.width);
    needle.setAttribute("visibility", "visible");
    numbers.textContent = `${moment(answer.times[at], range)}: ${said(at)}`;
  });
  picture.addEventListener("pointerleave", () => {
    needle.setAttribute("visibility", "hidden");
    numbers.textContent = quiet;
  });
  const axis = element("div", undefined, "axis");
  axis.append(element("span", moment(answer.times[0], range)), element("span", `up to ${kind.form(top)}`), element("span", moment(answer.times[answer.times.length - 1], range)));
  figure.append(caption, picture, axis);
  return figure;
}

const historyRange = () => Number(document.querySelector("input[name=range]:checked").value);

async function showHistory() {
  if (asking) asking.abort();
  const mine = new AbortController();
  asking = mine;
  const range = historyRange();
  document.dispatchEvent(new Event("history-asked"));
  const query = new URLSearchParams({ container: shownId, from: String(-range) });
  try {
    const answer = await fetch(`api/v1/history?${query}`, { signal: mine.signal });
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.message);
    $("history-of").textContent = shownId === HOST_ID ? `${visible(body.name)} (host)` : visible(body.name);
    $("history-state").textContent = `averages of the range; a point is ${body.step} s`;
    $("history-state").className = "";
    if (!$("charts").matches(":hover")) $("charts").replaceChildren(...CHARTS.map((kind) => chart(kind, body, range)));
  } catch (error) {
    if (mine.signal.aborted) return;
    if (shownId !== HOST_ID) $("history-of").textContent = visible(shownId.slice(0, 12));
    $("history-state").textContent = String(error.message || error);
    $("history-state").className = "bad";
  }
}

function selectHistory(id) {
  shownId = id;
  $("charts").replaceChildren();
  showHistory();
}

// Whoever has history, removed ones too: asked for when somebody wants to choose.
async function listHistory() {
  const answer = await fetch("api/v1/history/containers");
  if (!answer.ok) return;
  const names = document.createDocumentFragment();
  for (const one of await answer.json()) {
    const option = element("option", `${visible(one.name)}${one.id === HOST_ID ? " (host)" : ` ${visible(one.id.slice(0, 12))}`}`);
    option.value = one.id;
    option.selected = one.id === shownId;
    names.append(option);
  }
  if (![...names.children].some((option) => option.selected)) {
    const unknown = element("option", visible(shownId));
    unknown.value = shownId;
    unknown.selected = true;
    names.prepend(unknown);
  }
  $("history-choice").replaceChildren(names);
}

document.querySelectorAll("input[name=range]").forEach((choice) => choice.addEventListener("change", () => {
  $("charts").replaceChildren();
  showHistory();
}));
$("history-choice").addEventListener("focus", listHistory);
$("history-choice").addEventListener("change", () => selectHistory($("history-choice").value));
let refreshed = 0;
setInterval(() => {
  if (document.hidden || Date.now() - refreshed < REFRESH_MS[historyRange()]) return;
  refreshed = Date.now();
  showHistory();
}, 1000);
const asked = new URLSearchParams(location.search);
if (asked.get("history")) shownId = asked.get("history");
document.querySelectorAll("input[name=range]").forEach((choice) => { choice.checked = choice.value === (asked.get("range") || "600"); });
if (!document.querySelector("input[name=range]:checked")) document.querySelector("input[name=range]").checked = true;
listHistory();
showHistory();
