// The page: the containers' table, fed by one streaming request, and the log search under it.
"use strict";

const $ = (id) => document.getElementById(id);
const curves = new Map(); // container id -> recent CPU percentages
const CURVE_POINTS = 120;
const MAX_LINES = 500;
const FOLLOW_MS = 2000;
let rows = [];
let sort = { key: "name", down: false };

function bytes(value) {
  if (value === undefined || value === null) return "–";
  let unit = 0;
  while (value >= 1024 && unit < 5) { value /= 1024; unit += 1; }
  return `${value >= 100 || unit === 0 ? Math.round(value) : value.toPrecision(3)} ${["B", "KiB", "MiB", "GiB", "TiB", "PiB"][unit]}`;
}

// What a container printed is shown, never obeyed: control and reordering characters become visible.
function visible(text) {
  return text.replace(/[\u0000-\u0008\u000a-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function draw(canvas, points) {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [120 * ratio, 22 * ratio];
  canvas.width = width;
  canvas.height = height;
  const pen = canvas.getContext("2d");
  const top = Math.max(5, ...points);
  pen.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--mark");
  pen.lineWidth = ratio;
  pen.beginPath();
  points.forEach((value, index) => {
    const x = width - (points.length - 1 - index) * (width / (CURVE_POINTS - 1));
    const y = height - ratio - (value / top) * (height - 2 * ratio);
    if (index === 0) pen.moveTo(x, y); else pen.lineTo(x, y);
  });
  pen.stroke();
}

function compare(a, b) {
  const [left, right] = [a[sort.key] ?? "", b[sort.key] ?? ""];
  const order = typeof left === "number" && typeof right === "number" ? left - right : String(left).localeCompare(String(right));
  return sort.down ? -order : order;
}

function showContainers() {
  const wanted = $("filter").value.toLowerCase();
  const shown = rows.filter((row) => `${row.name} ${row.image}`.toLowerCase().includes(wanted)).sort(compare);
  const body = document.createDocumentFragment();
  for (const row of shown) {
    const line = element("tr");
    const sampled = Boolean(row.time_ns);
    const number = (text) => element("td", sampled ? text : "–", "n");
    line.append(element("td", visible(row.name), "name"), element("td", row.state), element("td", visible(row.image)));
    line.append(number(row.cpu_percent === null ? "–" : `${row.cpu_percent.toFixed(1)} %`)); // null: nobody counts it
    const cell = element("td", undefined, "curve");
    const canvas = element("canvas");
    cell.append(canvas);
    draw(canvas, curves.get(row.id) || []);
    line.append(cell, number(bytes(row.memory_usage_bytes)), number(bytes(row.memory_limit_bytes)));
    for (const key of ["net_rx_bytes", "net_tx_bytes", "block_read_bytes", "block_write_bytes"]) line.append(number(bytes(row[key])));
    line.append(number(row.pids === null ? "–" : String(row.pids)));
    line.title = `show the history and the log of ${visible(row.name)}`;
    line.addEventListener("click", () => {
      selectHistory(row.id);
      $("query").value = `container:"${row.name}"`;
      search();
    });
    body.append(line);
  }
  const table = document.querySelector("#containers tbody");
  table.replaceChildren(body);
}

// The curve of a container seen for the first time begins with what the agent remembers.
async function remember(row) {
  curves.set(row.id, []);
  const answer = await fetch(`api/v1/history?container=${encodeURIComponent(row.id)}`);
  if (!answer.ok) return;
  const { columns } = await answer.json();
  const percent = columns.cpu_percent.filter((value) => value !== null);
  curves.set(row.id, [...percent, ...(curves.get(row.id) || [])].slice(-CURVE_POINTS));
}

function take(update) {
  rows = update.containers;
  $("host").textContent = update.host;
  for (const row of rows) {
    if (!row.time_ns || row.cpu_percent === null) continue;
    if (!curves.has(row.id)) remember(row);
    const points = curves.get(row.id);
    points.push(row.cpu_percent);
    curves.set(row.id, points.slice(-CURVE_POINTS));
  }
  const present = new Set(rows.map((row) => row.id));
  for (const id of curves.keys()) if (!present.has(id)) curves.delete(id);
  showContainers();
}

let streaming = null;
async function watch() {
  if (streaming) streaming.abort();
  const mine = new AbortController();
  streaming = mine;
  while (streaming === mine) {
    try {
      const answer = await fetch(`api/v1/stats?stream=1&all=${$("all").checked ? 1 : 0}`, { signal: mine.signal });
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      $("state").className = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        const lines = (rest + value).split("\n");
        rest = lines.pop();
        if (lines.length) {
          take(JSON.parse(lines[lines.length - 1]));
          $("state").textContent = `${rows.length} containers`;
        }
      }
    } catch (error) {
      if (mine.signal.aborted) return;
    }
    $("state").textContent = "the agent does not answer, trying again";
    $("state").className = "bad";
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

let searching = null;
async function search() {
  if (searching) searching.abort();
  const mine = new AbortController();
  searching = mine;
  const since = BigInt(Date.now() - Number($("since").value) * 1000) * 1000000n;
  const query = new URLSearchParams({ query: $("query").value, since: String(since), limit: String(MAX_LINES) });
  const started = performance.now();
  try {
    const answer = await fetch(`api/v1/search?${query}`, { signal: mine.signal });
    if (!answer.ok) {
      $("found").textContent = (await answer.json()).message;
      $("found").className = "bad";
      return;
    }
    const hits = (await answer.text()).split("\n").filter(Boolean).map((line) => JSON.parse(line));
    const failed = hits.find((hit) => hit.error);
    const found = hits.filter((hit) => !hit.error);
    $("found").className = failed ? "bad" : "";
    $("found").textContent = failed ? failed.error
      : `${found.length}${found.length === MAX_LINES ? " newest" : ""} lines in ${Math.round(performance.now() - started)} ms`;
    const list = document.createDocumentFragment();
    for (const hit of found) {
      const item = element("li", undefined, hit.stream);
      const moment = new Date(hit.time_ns / 1e6);
      const time = element("time", `${moment.toTimeString().slice(0, 8)}.${String(moment.getMilliseconds()).padStart(3, "0")}`); // as the charts: local
      time.dateTime = moment.toISOString();
      time.title = moment.toISOString();
      item.append(time, element("b", visible(hit.container || "–")), visible(hit.line.replace(/\n$/, "")));
      list.append(item);
    }
    const lines = $("lines");
    if (lines.scrollTop === 0 || !$("follow").checked) lines.replaceChildren(list);
  } catch (error) {
    if (mine.signal.aborted) return;
    $("found").textContent = String(error);
    $("found").className = "bad";
  }
}

document.querySelectorAll("#containers th[data-key]").forEach((head) => {
  head.addEventListener("click", () => {
    sort = { key: head.dataset.key, down: sort.key === head.dataset.key ? !sort.down : head.dataset.key !== "name" };
    document.querySelectorAll("#containers th").forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", sort.down ? "descending" : "ascending");
    showContainers();
  });
});
$("filter").addEventListener("input", showContainers);
$("all").addEventListener("change", watch);
$("search").addEventListener("submit", (event) => { event.preventDefault(); search(); });
setInterval(() => { if ($("follow").checked && !document.hidden) search(); }, FOLLOW_MS);
watch();
search();
