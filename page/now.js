// What is going on now: open incidents, what is not judged, and all nodes or ports.

import { copyable } from "./detail.js";
import { count, duration, make, mark, moment, rankOf } from "./words.js";

const $ = (id) => document.getElementById(id);
const NAMED = 5;
// What a note means, where it names metrics; elsewhere it has a reason of its own.
const NOTES = {
  unknown: ["Unknown", "no usable sample, so not judged"],
  silent: ["Silent", null],
  quiet: ["Kept quiet", null],
  drift: ["Drift", "over the threshold for most of the last hours: if that is normal now, train again"],
  blind: ["Blind", "lower the threshold, or train on steadier records"],
  fault: ["Fault", null],
  "without a model": ["Without a model", "not watched until it is trained"],
};

// Marks of what is no status.
const NOTE_MARKS = { drift: "↗", blind: "○", quiet: "△" };

const link = (name) => make("a", { href: `#node=${encodeURIComponent(name)}` }, name || "the node");

function names(list) {
  const parts = list.slice(0, NAMED).flatMap((name, place) => (place ? [", ", link(name)] : [link(name)]));
  return list.length > NAMED ? [...parts, ` and ${list.length - NAMED} more`] : parts;
}

// A text as one word of a shell; null if a terminal would not take it as it is.
function quoted(text) {
  if (/[\u0000-\u001f\u007f-\u009f]/.test(text)) return null;
  return /^[\w@.:+,/-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

// Id -> how an open incident is answered; it stays unfolded as long as it is there.
const answers = new Map();

function answerOf(id, half) {
  const word = quoted(id);
  if (word === null) return [];
  if (!answers.has(id)) {
    const start = `python find_anomalies.py${half === "ports" ? " --target ports" : ""} --mode answer --incident`;
    const lines = [["it is normal", "--normal"], ["it is an attack", "--attack"], ["it is maintenance", "--maintenance --until 2h"]];
    answers.set(id, make("details", { class: "reply" }, make("summary", {}, "Answer it"), ...lines.map(([says, option]) => {
      const { line, button } = copyable(`command that says: ${says}`);
      line.value = `${start}${word.startsWith("-") ? "=" : " "}${word} ${option}`;
      return make("div", { class: "tools" }, line, button);
    })));
  }
  return [answers.get(id)];
}

const parse = (text) => Date.parse(text);

function incident(one, half) {
  const began = parse(one.began);
  const when = one.ended
    ? [moment(began), ` for ${duration(parse(one.ended) - began)}`]
    : ["since ", moment(began), make("span", { class: "lasting", "data-since": began }, ` (${duration(Date.now() - began)})`)];
  const members = one.members?.length ? [` · ${count(one.members.length, "incident")} together`] : [];
  return make("li", { class: one.ended ? "incident" : "incident open" },
    make("a", { href: `#incident=${encodeURIComponent(one.id)}` },
      mark(one.ended ? "normal" : "alert"),
      make("span", { class: "unseen" }, one.ended ? "closed: " : "open: "),
      make("span", { class: "why" }, one.why || one.cause)),
    make("p", { class: "when" }, ...when, ...members, make("code", {}, one.id)),
    ...(one.ended ? [] : answerOf(one.id, half)));
}

function note({ kind, what, nodes }, total, half) {
  const [title, words] = NOTES[kind] ?? [kind, null];
  const isOne = nodes.length === 1 && nodes[0] === "";
  const isAll = nodes.length > NAMED && nodes.length === total;
  const who = isOne ? [] : isAll ? [`all ${nodes.length.toLocaleString("en")}`] : names(nodes);
  const isReason = words === null || half === "ports";
  const parts = isReason
    ? [...who, isOne ? "" : ": ", what.join(", ") || words]
    : [what.join(", "), isOne ? "" : " of ", ...who, make("span", { class: "hint" }, `: ${words}`)];
  return make("li", {}, mark(kind, NOTE_MARKS[kind]), make("span", {}, make("strong", {}, title), " ", ...parts));
}

let known = null;
let shown = "";
// Name -> its row; rows stay, so that nothing jumps under a finger.
const rows = new Map();

function row(name, status) {
  let found = rows.get(name);
  if (!found) {
    const word = make("span", { class: "status" });
    const anchor = make("a", { href: `#node=${encodeURIComponent(name)}` }, mark(status), make("span", { class: "name" }, name), word);
    found = { item: make("li", {}, anchor), anchor, word, status: null };
    rows.set(name, found);
  }
  if (found.status !== status) {
    found.status = status;
    found.anchor.firstChild.replaceWith(mark(status));
    found.word.textContent = status;
    found.item.className = rankOf(status) === rankOf("normal") ? "" : "notable";
  }
  return found;
}

function list(content) {
  const isOne = content.nodes.length === 1 && content.nodes[0][0] === "";
  $("all").hidden = isOne;
  if (isOne) return;
  $("all-title").textContent = content.half === "ports" ? "Ports" : "Nodes";
  const sorted = [...content.nodes].sort((a, b) => rankOf(a[1]) - rankOf(b[1]) || (a[0] < b[0] ? -1 : 1));
  const items = sorted.map(([name, status]) => row(name, status).item);
  const order = JSON.stringify(sorted.map(([name]) => name));
  if (order !== shown) {
    shown = order;
    const focused = document.activeElement;
    $("list").replaceChildren(...items);
    if (focused?.isConnected && $("list").contains(focused)) focused.focus();
    for (const name of rows.keys()) if (!content.nodes.some(([one]) => one === name)) rows.delete(name);
  }
  filter();
}

export function filter() {
  const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  let matches = 0;
  for (const [name, { item, status }] of rows) {
    const text = `${name} ${status}`.toLowerCase();
    const isShown = words.every((word) => text.includes(word));
    if (item.hidden === isShown) item.hidden = !isShown;
    matches += isShown;
  }
  $("matches").textContent = words.length ? `${matches} of ${rows.size}` : "";
}

export function choose(name) {
  for (const [one, { anchor }] of rows) {
    if (one === name) anchor.setAttribute("aria-current", "true");
    else if (anchor.hasAttribute("aria-current")) anchor.removeAttribute("aria-current");
  }
}

export function rowOf(name) {
  return rows.get(name)?.anchor;
}

export function showNow(content) {
  const open = content.incidents;
  $("incidents-title").textContent = open.length ? `Open incidents (${open.length})` : "Open incidents";
  const none = make("li", { class: "none" }, "No incident is open.");
  const focused = document.activeElement;
  $("incidents").replaceChildren(...(open.length ? open.map((one) => incident(one, content.half)) : [none]));
  if (focused !== document.activeElement && $("incidents").contains(focused)) focused.focus();
  // Only incidents that open while somebody listens are news.
  const isNew = open.filter((one) => known && !known.has(one.id));
  if (isNew.length) $("news").textContent = isNew.map((one) => `New incident: ${one.why || one.cause}`).join(". ");
  known = new Set(open.map((one) => one.id));
  for (const id of answers.keys()) if (!known.has(id)) answers.delete(id);
  $("notes").replaceChildren(...(content.notes.length ? [make("ul", { "aria-label": "What is not judged, or not well" }, ...content.notes.map((one) => note(one, content.nodes.length, content.half)))] : []));
  $("closed").hidden = !content.closed.length;
  $("closed").firstElementChild.textContent = `Closed incidents (${content.closed.length})`;
  $("closed-list").replaceChildren(...content.closed.map((one) => incident(one, content.half)));
  list(content);
}

export function countsOf(content) {
  const counts = new Map();
  for (const [, status] of content.nodes) counts.set(status, (counts.get(status) ?? 0) + 1);
  const sorted = [...counts].sort((a, b) => rankOf(a[0]) - rankOf(b[0]));
  if (content.nodes.length === 1 && content.nodes[0][0] === "") return [mark(content.nodes[0][1]), content.nodes[0][1]];
  const word = content.half === "ports" ? "port" : "node";
  return [`${count(content.nodes.length, word)}: `, ...sorted.flatMap(([status, number]) => [
    make("span", { class: "count" }, mark(status), `${number.toLocaleString("en")} ${status}`)])];
}
