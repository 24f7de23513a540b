// The parts of the operators' view. Each makes elements from one response; act(path, options, said) sends a change.
import { chart } from "./charts.js";
import { button, el, icon } from "./dom.js";
import { ago, bytes, clock, moment, number, percent, remaining } from "./format.js";
import { t } from "./i18n.js";
import { confirmed } from "./dialog.js";

const post = (json) => ({ method: "POST", json });

// A table that scrolls by itself on narrow screens. columns: heads; rows: lists of texts and elements.
function table(name, columns, rows, none) {
  if (!rows.length) return el("p", { class: "soft none" }, none);
  return el("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": name },
    el("table", {}, el("thead", {}, el("tr", {}, columns.map((column) => el("th", { scope: "col" }, column)))),
      el("tbody", {}, rows.map((cells) => el("tr", {}, cells.map((cell, index) => el(index ? "td" : "th", index ? {} : { scope: "row" }, cell)))))));
}

// A button in a row, named for what it does and to which row.
const rowButton = (label, name, symbol, action) => button(label, action, { symbol, square: true, kind: "plain compact", "aria-label": t("act.on", { act: label, name }) });
const heads = (...names) => names.map((name) => (name ? t(`head.${name}`) : el("span", { class: "hidden-text" }, t("head.actions"))));
const badge = (text, kind) => el("span", { class: `badge ${kind}` }, text);

export function health(report) {
  const checks = Object.entries(report.checks).map(([name, state]) => el("li", {}, icon(state === "ok" ? "check" : "alert"), el("span", {}, name), state !== "ok" && el("span", { class: "soft" }, state)));
  checks.forEach((item, index) => { item.dataset.ok = String(Object.values(report.checks)[index] === "ok"); });
  return [el("ul", { class: "checks" }, checks),
    el("dl", { class: "facts-row" }, [["workers_active", "workers"], ["jobs_pending", "waiting"], ["jobs_processing", "running"]].map(([field, name]) =>
      el("div", {}, el("dt", { class: "soft small" }, t(`head.${name}`)), el("dd", { class: "numeric" }, number(report[field])))))];
}

export function figures({ buckets }) {
  const labels = buckets.map(({ start }) => new Intl.DateTimeFormat(document.documentElement.lang, { timeStyle: "short" }).format(new Date(start)));
  const of = (field) => buckets.map((bucket) => bucket[field]);
  const sum = (field) => of(field).reduce((total, value) => total + (value ?? 0), 0);
  const mean = (field, digits, unit) => {
    const known = of(field).filter((value) => value !== null);
    return known.length ? `${number(known.reduce((total, value) => total + value, 0) / known.length, digits)}${unit}` : "–";
  };
  const one = (name, field, total) => chart(t(`figure.${name}`), [{ name: t(`figure.${name}`), values: of(field), kind: "plain" }], { labels, total });
  return [el("div", { class: "charts" },
    chart(t("figure.ended"), [{ name: t("state.COMPLETED"), values: of("completed"), kind: "good" }, { name: t("state.FAILED"), values: of("failed"), kind: "bad" }],
      { labels, total: t("figure.ended.total", { done: number(sum("completed")), failed: number(sum("failed")) }) }),
    one("seconds", "mean_seconds", mean("mean_seconds", 1, " s")), one("factor", "real_time_factor", mean("real_time_factor", 2, "×")))];
}

export function queues({ queues: list }) {
  const rows = list.map((queue) => {
    const sum = (field) => queue.priorities.reduce((total, row) => total + row[field], 0);
    const oldest = Math.max(0, ...queue.priorities.map((row) => row.oldest_seconds));
    return [queue.name, number(queue.pending), number(sum("waiting")), number(queue.unacked), oldest ? clock(oldest) : "–", number(queue.workers)];
  });
  return [table(t("operate.queues"), heads("queue", "messages", "waiting", "running", "oldest", "workers"), rows, t("operate.none"))];
}

export function workers({ workers: list }) {
  const rows = list.map((worker) => [worker.host ?? worker.worker_id, worker.sick ? badge(worker.sick, "bad") : badge(t("worker.well"), "good"), number(worker.slots),
    worker.models.map((name) => el("div", {}, name, " ", el("span", { class: "soft small" }, worker.engines?.[name] ?? ""))), worker.version ?? "–", worker.heartbeat_at ? ago(worker.heartbeat_at) : "–"]);
  return [table(t("operate.workers"), heads("worker", "state", "slots", "models", "version", "seen"), rows, t("worker.none"))];
}

export function deadLetters({ dead_letters: list, total }, act) {
  const replayed = ({ reopened, stale }) => t("dead.replayed", { reopened, stale });
  const purged = ({ removed }) => t("dead.purged", { removed });
  const replay = (json) => act("/api/v1/admin/dead-letters/replay", post(json), replayed);
  const purge = async (json, question) => { if (await confirmed(question, t("dead.purge"))) act("/api/v1/admin/dead-letters/purge", post(json), purged); };
  const rows = list.map((letter) => [
    letter.job_id ? el("a", { href: `#/jobs/${letter.job_id}` }, letter.job_id.slice(0, 8)) : "–", el("div", {}, el("strong", {}, letter.code), el("div", { class: "soft small" }, letter.message)),
    number(letter.attempts), letter.last_failure ? ago(letter.last_failure) : "–",
    letter.job_id ? el("span", { class: "cell-acts" },
      letter.replayable && rowButton(t("dead.replay"), letter.job_id.slice(0, 8), "retry", () => replay({ job_id: letter.job_id })),
      rowButton(t("dead.purge"), letter.job_id.slice(0, 8), "trash", () => purge({ job_id: letter.job_id }, t("dead.purge.this", { name: letter.job_id.slice(0, 8) })))) : ""]);
  const all = total > 0 && el("div", { class: "actions" }, button(t("dead.replay.all"), () => replay({ all: true }), { symbol: "retry", kind: "compact" }),
    button(t("dead.purge.all"), () => purge({ all: true }, t("dead.purge.sure", { count: total })), { symbol: "trash", kind: "compact danger" }));
  return [table(t("operate.dead"), heads("job", "failure", "attempts", "last", ""), rows, t("dead.none")), all, total > list.length && el("p", { class: "soft small" }, t("dead.more", { count: total - list.length }))].filter(Boolean);
}

export function models({ models: list }, act) {
  const order = ["pulling", "retrying", "queued", "failed", "installed"];
  const here = list.filter((model) => order.includes(model.state)).sort((one, other) => order.indexOf(one.state) - order.indexOf(other.state));
  const others = list.filter((model) => !order.includes(model.state));
  const show = (name, some) => table(name, heads("model", "state", "size", "memory", "workers", ""), some.map((model) => modelRow(model, act)), t("operate.none"));
  return [show(t("operate.models"), here), el("details", {}, el("summary", { class: "soft" }, t("model.more", { count: others.length })), show(t("model.available"), others))];
}

function modelRow(model, act) {
  return [
    el("div", {}, model.name, el("div", { class: "soft small" }, [model.languages, model.speed, model.licence].filter(Boolean).join(" · "))), modelState(model),
    model.total ? bytes(model.total) : "–", model.memory_mb ? bytes(model.memory_mb * 1e6) : "–", number(model.workers), modelActs(model, act)];
}

function modelState(model) {
  if (model.state === "pulling") {
    const done = model.total ? (100 * model.done) / model.total : 0;
    return el("div", { class: "pull" }, el("progress", { max: 100, value: done, "aria-label": t("progress.of", { name: model.name }) }), el("span", { class: "small soft numeric" }, [percent(done), remaining(model.remaining_seconds)].filter(Boolean).join(" · ")));
  }
  const kind = { installed: "good", failed: "bad", retrying: "warn" }[model.state] ?? "";
  return el("div", {}, badge(t(`model.${model.state}`), kind), model.error && el("div", { class: "small problem" }, model.error.message));
}

function modelActs(model, act) {
  const { name, state } = model;
  if (state === "available") return rowButton(t("model.install"), name, "save", () => act("/api/v1/models", post({ model: name }), () => t("model.installing", { name })));
  if (state === "import") return "";
  const remove = async () => { if (await confirmed(t("model.remove.sure", { name }), t("model.remove"))) act(`/api/v1/models/${encodeURIComponent(name)}`, { method: "DELETE" }, () => t("model.removing", { name })); };
  return rowButton(t("model.remove"), name, "trash", remove);
}

export function keys({ keys: list }) {
  const state = (key) => (key.revoked_at ? badge(t("key.revoked"), "bad") : key.expires_at && Date.parse(key.expires_at) < Date.now() ? badge(t("key.expired"), "warn") : badge(t("key.valid"), "good"));
  const rows = list.map((key) => [key.name || key.key_id, key.owner, state(key), key.last_used_at ? ago(key.last_used_at) : t("key.unused"), key.expires_at ? moment(key.expires_at) : t("key.forever")]);
  return [table(t("operate.keys"), heads("key", "owner", "state", "used", "expires"), rows, t("key.none"))];
}
