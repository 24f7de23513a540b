// For operators: what waits, who works, what has failed, models and keys.
import { toast } from "./announce.js";
import { call, pause } from "./api.js";
import { el, icon } from "./dom.js";
import { t } from "./i18n.js";
import { deadLetters, figures, health, keys, models, queues, workers } from "./operate-parts.js";

const EVERY = 5000;
// Each part reads one route, so that one that fails leaves the others.
const PARTS = [
  ["health", "/health", health],
  ["figures", "/api/v1/admin/figures", figures],
  ["queues", "/api/v1/stats", queues],
  ["workers", "/api/v1/stats", workers],
  ["dead", "/api/v1/admin/dead-letters?limit=200", deadLetters],
  ["models", "/api/v1/models", models],
  ["keys", "/api/v1/admin/keys", keys],
];

export function open(main) {
  const stopped = new AbortController();
  document.title = `${t("nav.operate")} · async-stt`;
  const holders = PARTS.map(([name]) => el("section", { class: `part part-${name}`, "aria-labelledby": `part-${name}` }, el("div", { class: "part-head" }, el("h2", { id: `part-${name}` }, t(`operate.${name}`))), el("div", { class: "part-body" }, el("div", { class: "bone" }))));
  main.append(el("div", { class: "operate" }, el("h1", { tabindex: "-1" }, t("nav.operate")), el("div", { class: "parts" }, holders)));
  run(holders, stopped.signal);
  return { stop: () => stopped.abort() };
}

async function run(holders, signal) {
  const shown = holders.map(() => "");
  while (!signal.aborted) {
    if (!document.hidden) await refresh(holders, shown, signal);
    await pause(EVERY, signal);
  }
}

async function refresh(holders, shown, signal) {
  const asked = new Map();
  const read = (path) => asked.get(path) ?? asked.set(path, call(path, { signal }).catch(unhealthy)).get(path);
  await Promise.all(PARTS.map(async ([, path, draw], index) => {
    let body;
    let data;
    try {
      data = await read(path);
    } catch (error) {
      if (error.name === "AbortError") return;
      body = [el("div", { class: "notice bad" }, icon("alert"), el("div", {}, el("p", {}, error.message)))];
      data = { error: error.message };
    }
    // an unchanged part is left alone, with its focus
    const now = JSON.stringify(data, (name, value) => (name === "timestamp" ? undefined : value));
    if (now === shown[index]) return;
    shown[index] = now;
    const act = (path, options, said) => change(path, options, said, () => refresh(holders, shown, signal));
    replace(holders[index].querySelector(".part-body"), body ?? draw(data, act));
  }));
}

// /health is 503 with a body when a dependency is down: that is the answer, not a failure to get one.
function unhealthy(error) {
  if (error.status === 503 && error.body?.checks) return error.body;
  throw error;
}

// Put new elements in, and the focus back on the control with the same name.
function replace(holder, children) {
  const focused = holder.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") ?? document.activeElement.textContent : null;
  const open = holder.querySelector("details")?.open;
  holder.replaceChildren(...children);
  if (open) holder.querySelector("details").open = true;
  if (focused === null) return;
  const again = [...holder.querySelectorAll("button, input, a")].find((node) => (node.getAttribute("aria-label") ?? node.textContent) === focused);
  (again ?? holder.closest("section").querySelector("button") ?? document.querySelector("h1")).focus();
}

async function change(path, options, said, after) {
  try {
    const answer = await call(path, options);
    toast(said(answer ?? {}), { seconds: 4 });
  } catch (error) {
    toast(error.message);
  }
  await after();
}
