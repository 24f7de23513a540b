// One row of the list: a job, an upload, or an upload that a reload cut off.
import { button, el, icon, write } from "./dom.js";
import { ago, bytes, clock, moment, percent, remaining } from "./format.js";
import { t } from "./i18n.js";

const SYMBOLS = { COMPLETED: "check", FAILED: "alert", BROKEN: "alert", CANCELLED: "close", PENDING: "clock", PROCESSING: "wave", SENDING: "add" };

// A row keeps its elements; update() writes what has changed, so that focus and selection stay.
export class Row {
  #shape = null;

  constructor() {
    this.mark = el("span", { class: "mark" });
    this.facts = el("p", { class: "facts" });
    this.label = el("span");
    this.left = el("span", { class: "numeric" });
    this.bar = el("progress", { max: 100 });
    this.doing = el("div", { class: "doing" }, el("p", {}, this.label, this.left), this.bar);
    this.heard = el("p", { class: "heard" });
    this.why = el("p", { class: "why" });
    this.acts = el("div", { class: "acts" });
    this.title = el("div");
    this.node = el("li", { class: "job" }, this.mark, el("div", {}, this.title, this.facts, this.doing, this.heard, this.why), this.acts);
  }

  // model: {state, name, href, facts, bar: null or {label, left, value}, heard, why, acts: [[label, symbol, function]]}
  update(model) {
    const shape = [model.state, model.name, model.href, ...model.acts.map(([label]) => label)].join("\n");
    if (shape !== this.#shape) this.#rebuild(model, shape);
    this.#writeFacts(model.facts);
    this.doing.hidden = !model.bar;
    if (model.bar) this.#writeBar(model.bar, model.name);
    for (const name of ["heard", "why"]) {
      this[name].hidden = !model[name];
      write(this[name], model[name] ?? "");
    }
  }

  #rebuild(model, shape) {
    const focused = this.node.contains(document.activeElement);
    this.#shape = shape;
    this.node.dataset.state = model.state;
    this.mark.replaceChildren(icon(SYMBOLS[model.state]));
    this.title.replaceChildren(model.href ? el("a", { class: "name", href: model.href, dir: "auto" }, model.name) : el("span", { class: "name", dir: "auto" }, model.name));
    this.acts.replaceChildren(...model.acts.map(([label, symbol, action]) =>
      button(label, action, { symbol, square: true, kind: "plain compact", "aria-label": t("act.on", { act: label, name: model.name }) })));
    if (focused && !this.node.contains(document.activeElement)) (this.acts.querySelector("button") ?? this.title.querySelector("a"))?.focus();
  }

  #writeFacts(facts) {
    const texts = facts.filter(Boolean);
    while (this.facts.children.length > texts.length) this.facts.lastChild.remove();
    texts.forEach((text, index) => write(this.facts.children[index] ?? this.facts.appendChild(el("span")), text));
  }

  #writeBar({ label, left, value }, name) {
    write(this.label, label);
    write(this.left, left ?? "");
    this.bar.setAttribute("aria-label", t("progress.of", { name }));
    if (value === null) this.bar.removeAttribute("value");
    else this.bar.value = value;
  }
}

export function jobModel(job, acts) {
  const state = job.status;
  const running = state === "PENDING" || state === "PROCESSING";
  const language = job.detected_language ?? job.language;
  const bar = running && {
    label: state === "PENDING" ? t("job.waiting") : job.chunks_total ? t("job.chunks", { done: job.chunks_completed, total: job.chunks_total }) : t("job.preparing"),
    left: [job.progress ? percent(job.progress) : "", remaining(job.estimated_time_seconds)].filter(Boolean).join(" · "),
    value: state === "PENDING" || (!job.progress && !job.chunks_total) ? null : job.progress,
  };
  return {
    state,
    name: nameOf(job),
    href: `#/jobs/${job.job_id}`,
    facts: [running ? "" : t(`state.${state}`), job.duration_seconds ? clock(job.duration_seconds) : "", t(`language.${language}`), ago(job.created_at)],
    bar,
    heard: running ? job.heard : "",
    why: state === "FAILED" ? job.error_message : "",
    acts,
  };
}

export const nameOf = (job) => job.original_filename || t("job.unnamed", { when: moment(job.created_at) });

export function uploadModel(upload, acts) {
  const failed = upload.state === "failed";
  const sending = upload.state === "sending" && upload.size;
  const sent = upload.sent >= upload.size;
  return {
    state: failed ? "BROKEN" : "SENDING",
    name: upload.name,
    facts: [upload.size ? bytes(upload.size) : ""],
    bar: failed ? null : {
      label: upload.state === "retrying" ? t("upload.retrying", { attempt: upload.tries + 1 }) : upload.state === "waiting" ? t("upload.waiting")
        : sending && !sent ? t("upload.sent", { sent: bytes(upload.sent), size: bytes(upload.size) }) : t("upload.accepting"),
      left: sending && !sent ? remaining(upload.remaining) : "",
      value: upload.state === "waiting" ? 0 : sending && !sent ? (100 * upload.sent) / upload.size : null,
    },
    why: failed || upload.state === "retrying" ? upload.problem?.message : "",
    acts,
  };
}

export const interruptedModel = (entry, acts) => ({ state: "BROKEN", name: entry.name, facts: [bytes(entry.size)], bar: null, why: t("upload.interrupted"), acts });
