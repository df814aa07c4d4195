// Who used most inside one container or the host, and who talked to whom: over the history's range, or at a moment.
"use strict";

const INSIDE_MS = 10000;
const MOST_ROWS = 20;
let askingInside = null;
let askedInside = { what: "", at: 0 };

const clockText = (seconds) => {
  const when = new Date(seconds * 1000);
  const clock = when.toTimeString().slice(0, 8);
  return Date.now() - when > 86400000 ? `${when.toLocaleDateString()} ${clock}` : clock;
};
const commandCell = (text) => text.replace(/\s+/g, " "); // scripts have line ends
const percentCell = (value) => (value === null || value === undefined ? "–" : `${value.toFixed(1)} %`);
const secondsCell = (value) => (value === null || value === undefined ? "–" : `${value.toFixed(1)} s`);

function fillTable(id, headings, lines) {
  const head = element("tr");
  for (const [text, kind] of headings) head.append(element("th", text, kind));
  const body = lines.map((cells) => {
    const line = element("tr");
    cells.forEach((text, index) => line.append(element("td", visible(String(text)), headings[index][1])));
    line.lastChild.title = line.lastChild.textContent; // a command line may be cut
    return line;
  });
  if (!body.length) {
    const none = element("td", "none in this time", "none");
    none.colSpan = headings.length;
    body.push(element("tr"));
    body[0].append(none);
  }
  document.querySelector(`#${id} thead`).replaceChildren(head);
  document.querySelector(`#${id} tbody`).replaceChildren(...body);
}

function showProcesses(answer, range) {
  const rows = answer.processes.slice(0, MOST_ROWS);
  const thread = (row) => (row.threads.length ? `${row.threads[0].name} (${row.threads[0].cpu_seconds.toFixed(1)} s)` : "–");
  if (range) {
    fillTable("busiest", [["PID", "n"], ["CPU time", "n"], ["Highest", "n"], ["At", "n"], ["Most memory", "n"],
      ["Read", "n"], ["Written", "n"], ["Busiest thread"], ["Container"], ["Command"]],
    rows.map((row) => [row.pid, secondsCell(row.cpu_seconds), percentCell(row.cpu_percent_max), clockText(row.cpu_max_at),
      bytes(row.resident_bytes_max), bytes(row.read_bytes), bytes(row.write_bytes), thread(row), row.container, commandCell(row.command)]));
  } else {
    rows.sort((a, b) => (b.cpu_percent || 0) - (a.cpu_percent || 0));
    fillTable("busiest", [["PID", "n"], ["CPU", "n"], ["Memory", "n"], ["Read/s", "n"], ["Written/s", "n"],
      ["Threads", "n"], ["User"], ["Container"], ["Command"]],
    rows.map((row) => [row.pid, percentCell(row.cpu_percent), bytes(row.resident_bytes), bytes(row.read_bytes_per_second),
      bytes(row.write_bytes_per_second), row.threads, row.user, row.container || answer.host, commandCell(row.command)]));
  }
}

function showMap(answer) {
  const names = new Map(answer.nodes.map((node) => [node.id, node.name]));
  const edges = answer.edges.sort((a, b) => b.bytes_sent + b.bytes_received - a.bytes_sent - a.bytes_received || b.total - a.total);
  fillTable("map", [["Client"], ["Server"], ["Service"], ["Connections", "n"], ["Sent", "n"], ["Received", "n"], ["First seen", "n"], ["Last seen", "n"]],
    edges.slice(0, MOST_ROWS).map((edge) => [names.get(edge.client), names.get(edge.server), `${edge.port}/${edge.protocol}`, edge.total,
      bytes(edge.bytes_sent), bytes(edge.bytes_received), clockText(edge.first_seen_ns / 1e9), clockText(edge.last_seen_ns / 1e9)]));
}

// How many more there are: those the agent left out and those this page has no room for.
function others(body) {
  const more = (body.left_out || 0) + Math.max(0, (body.processes || body.edges).length - MOST_ROWS);
  return more ? `and ${more} others` : "";
}

async function askInside(path, query, table, show) {
  const signal = askingInside.signal;
  const said = $(`${table}-state`);
  try {
    const answer = await fetch(`api/v1/history/${path}?${new URLSearchParams(query)}`, { signal });
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.message);
    show(body);
    said.textContent = others(body);
    said.className = "";
  } catch (error) {
    if (signal.aborted) return;
    document.querySelector(`#${table} thead`).replaceChildren();
    document.querySelector(`#${table} tbody`).replaceChildren();
    said.textContent = String(error.message || error);
    said.className = "bad";
  }
}

function showInside() {
  const moment = $("moment").value;
  const what = `${shownId} ${moment || historyRange()}`;
  if (what === askedInside.what && (moment || Date.now() - askedInside.at < INSIDE_MS)) return;
  askedInside = { what, at: Date.now() };
  if (askingInside) askingInside.abort();
  askingInside = new AbortController();
  const time = moment ? { time: String(new Date(moment).getTime() / 1000) } : { from: String(-historyRange()) };
  const whose = { container: shownId };
  const everyone = shownId === HOST_ID && !moment ? {} : whose; // the host's busiest are those of all containers, too
  askInside(moment ? "processes" : "busiest", { ...time, ...everyone }, "busiest", (answer) => showProcesses(answer, !moment));
  askInside("connections", { ...time, ...(shownId === HOST_ID ? {} : whose) }, "map", showMap);
}

document.addEventListener("history-asked", showInside);
$("moment").addEventListener("change", showInside);
const momentAsked = new URLSearchParams(location.search).get("moment");
if (momentAsked) $("moment").value = momentAsked;
showInside();
