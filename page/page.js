// The page: asks the service how things stand, and shows what the address names (#node=NAME, #incident=ID).

import { choose, countsOf, filter, rowOf, showNow } from "./now.js";
import { NodeDetail } from "./node.js";
import { PortDetail } from "./port.js";
import { clock, duration, make } from "./words.js";

const $ = (id) => document.getElementById(id);
const LONGEST_PAUSE = 5000;

let now = null;
let tag = null;
let detail = null;
// Why the service cannot be asked, and since when.
let lost = null;
let trouble = "";

const isOne = () => now.nodes.length === 1 && now.nodes[0][0] === "";

// What the address names: a node or port, and the incident if that led to it.
function chosen() {
  const [, kind, text] = location.hash.match(/^#(node|incident)=(.*)$/) ?? [];
  let name = null;
  try {
    name = kind ? decodeURIComponent(text) : null;
  } catch {
    name = null;
  }
  if (kind !== "incident") return { name: name ?? (isOne() ? "" : null), entry: null };
  const entry = [...now.incidents, ...now.closed].find((one) => one.id === name);
  if (!entry) return { name: isOne() ? "" : null, entry: null, missing: name };
  // An incident of many is shown by the first of its nodes.
  const first = entry.members?.[0]?.replace(/@[^@]*$/, "");
  return { name: now.nodes.some(([one]) => one === entry.node) ? entry.node : first ?? null, entry };
}

async function showChosen(isMoved) {
  const { name, entry, missing } = chosen();
  const isKnown = name !== null && now.nodes.some(([one]) => one === name);
  document.body.classList.toggle("chosen", isKnown);
  document.body.classList.toggle("one", isOne());
  $("detail").hidden = !isKnown;
  trouble = missing ? `The incident ${missing} is not among those that are kept.` : name !== null && !isKnown ? `${name} is not watched.` : "";
  choose(isKnown ? name : null);
  if (!isKnown) {
    detail = null;
    $("detail").replaceChildren();
    return;
  }
  if (detail?.name !== name) {
    detail = now.half === "ports" ? new PortDetail($("detail"), name) : new NodeDetail($("detail"), name, now.every);
    $("detail").setAttribute("aria-label", name || "The node");
  }
  detail.about(entry);
  document.title = name ? `${name} · Anomalies` : "Anomalies";
  if (isMoved && !isOne()) $("detail").focus();
  try {
    await detail.refresh();
  } catch (error) {
    trouble = error instanceof TypeError ? "" : error.message;
  }
}

function showState() {
  if (now) {
    const age = Date.now() - now.polled;
    $("age").replaceChildren(now.half === "ports" ? "judged " : "polled ", make("span", { title: new Date(now.polled).toISOString() }, clock(now.polled)), `, ${duration(age)} ago`);
    const isLate = age > 4000 * now.every && !lost;
    const words = [
      lost ? `The service has not answered since ${clock(lost)}; what is shown may be old.` : "",
      now.fault ? `Nothing is judged at the moment: ${now.fault}` : isLate ? `There was no poll for ${duration(age)}.` : "",
      trouble,
    ].filter(Boolean).join(" ");
    if ($("fault").textContent !== words) $("fault").textContent = words;
    $("fault").hidden = !words;
    for (const one of document.querySelectorAll("[data-since]")) {
      const text = ` (${duration(Date.now() - Number(one.dataset.since))})`;
      if (one.textContent !== text) one.textContent = text;
    }
  } else if (lost) {
    $("counts").textContent = "The service does not answer.";
  }
}

// One question at a time: an older answer must not come after a newer one.
let asking = Promise.resolve();
const refresh = () => (asking = asking.then(ask));

async function ask() {
  try {
    const answer = await fetch("now", { cache: "no-cache" });
    if (!answer.ok) throw new Error(String(answer.status));
    lost = null;
    if (answer.headers.get("ETag") !== tag) {
      const content = await answer.json();
      tag = answer.headers.get("ETag");
      now = content;
      showNow(now);
      $("counts").replaceChildren(...countsOf(now));
      await showChosen(false);
    }
  } catch {
    lost ??= Date.now();
  }
  showState();
}

async function keepAsking() {
  // Nobody looks at a hidden tab.
  if (!document.hidden) await refresh();
  setTimeout(keepAsking, Math.min(LONGEST_PAUSE, (now?.every ?? 15) * 1000 / 3));
}

addEventListener("hashchange", async () => {
  if (location.hash === "#list") $("list").focus();
  if (!now || location.hash === "#list") return;
  await showChosen(true);
  showState();
});
document.addEventListener("visibilitychange", () => document.hidden || refresh());
$("filter").addEventListener("input", filter);
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && event.target.tagName !== "INPUT" && !$("all").hidden) {
    event.preventDefault();
    $("filter").focus();
  } else if (event.key === "Escape" && event.target === $("filter")) {
    $("filter").value = "";
    filter();
  } else if (event.key === "Escape" && now && !isOne() && detail) {
    const name = detail.name;
    location.hash = "";
    rowOf(name)?.focus();
  }
});
setInterval(showState, 1000);
keepAsking();
