// The first view: take recordings and watch the list.
import { say, toast } from "./announce.js";
import { call } from "./api.js";
import { button, el, icon } from "./dom.js";
import { dropPanel, watchDrops } from "./drop.js";
import { t } from "./i18n.js";
import { ENDED, Jobs } from "./jobs.js";
import { removeJob } from "./remove.js";
import { interruptedModel, jobModel, nameOf, Row, uploadModel } from "./row.js";
import * as sending from "./uploads.js";

const STATES = ["", "PENDING", "PROCESSING", "COMPLETED", "FAILED", "CANCELLED"];
const TYPING = 250;
// what was chosen stays when a person comes back from a transcript
const chosen = { status: "", name: "" };

export function open(main) {
  const stopDrops = watchDrops();
  const list = new List();
  document.title = "async-stt";
  main.append(el("div", { class: "home" }, dropPanel(), list.node));
  list.start();
  return { stop: () => { stopDrops(); list.stop(); } };
}

class List {
  #rows = new Map();
  #jobs = new Jobs();
  #listeners = new AbortController();

  constructor() {
    this.items = el("ul", { class: "jobs", id: "jobs" });
    this.after = el("div", { class: "more" });
    this.search = el("input", { class: "input", type: "search", value: chosen.name, placeholder: t("filter.name"), "aria-label": t("filter.name"),
      maxlength: 100, on: { input: () => this.filterSoon() } });
    this.filters = STATES.map((status) => button(t(`filter.${status || "ALL"}`), () => this.filter(status), { kind: "compact", "aria-pressed": String(status === chosen.status) }));
    this.node = el("section", { "aria-label": t("nav.home") },
      el("div", { class: "list-head" }, el("h1", { tabindex: "-1" }, t("nav.home")), el("div", { class: "search" }, icon("search"), this.search),
        el("div", { class: "filters", role: "group", "aria-label": t("filter") }, this.filters)),
      this.items, this.after);
    this.observer = new IntersectionObserver(([entry]) => { if (entry.isIntersecting) this.#jobs.more(); }, { rootMargin: "600px" });
  }

  start() {
    const { signal } = this.#listeners;
    Object.assign(this.#jobs, chosen);
    this.#jobs.addEventListener("change", () => this.draw(), { signal });
    this.#jobs.addEventListener("ended", ({ detail }) => say(t(`said.${detail.status}`, { name: nameOf(detail) })), { signal });
    sending.uploads.addEventListener("change", () => this.drawSoon(), { signal });
    sending.uploads.addEventListener("accepted", ({ detail }) => this.#accepted(detail), { signal });
    this.#jobs.start();
    this.observer.observe(this.after);
    this.draw();
  }

  stop() {
    this.#listeners.abort();
    this.#jobs.stop();
    this.observer.disconnect();
  }

  filter(status) {
    Object.assign(chosen, { status, name: this.search.value.trim() });
    this.filters.forEach((filter, index) => filter.setAttribute("aria-pressed", String(STATES[index] === status)));
    this.#jobs.filter(chosen);
  }

  filterSoon() {
    clearTimeout(this.typing);
    this.typing = setTimeout(() => this.filter(chosen.status), TYPING);
  }

  #accepted({ accepted }) {
    if (accepted.warning) toast(accepted.warning);
    this.#jobs.refresh();
  }

  // bytes sent change many times a second
  drawSoon() {
    this.soon ??= requestAnimationFrame(() => { this.soon = null; this.draw(); });
  }

  draw() {
    const models = [...this.#sendingModels(), ...this.#jobs.list.map((job) => [job.job_id, jobModel(job, this.#acts(job))])];
    this.#place(models);
    this.#drawAfter(models.length);
  }

  #sendingModels() {
    const going = sending.list().filter((upload) => upload.state !== "accepted");
    return [
      ...sending.interrupted().map((entry) => [entry.key, interruptedModel(entry, [[t("upload.dismiss"), "close", () => sending.dismiss(entry)]])]),
      ...going.map((upload) => [upload.id, uploadModel(upload, this.#uploadActs(upload))]),
    ];
  }

  #uploadActs(upload) {
    const retry = [t("again"), "retry", () => sending.again(upload)];
    const cancel = [t(upload.state === "failed" ? "upload.dismiss" : "cancel"), "close", () => sending.remove(upload)];
    return upload.state === "failed" && upload.problem.code !== "UNSUPPORTED" && upload.problem.code !== "EMPTY" ? [retry, cancel] : [cancel];
  }

  #acts(job) {
    if (!ENDED.has(job.status)) return [[t("cancel"), "stop", () => this.#act(job, "cancel")]];
    const remove = [t("delete"), "trash", () => removeJob(job, { hide: (hidden) => this.#jobs.hide(job.job_id, hidden), onChange: () => this.#jobs.refresh() })];
    return job.status === "COMPLETED" ? [remove] : [[t("again"), "retry", () => this.#act(job, "retry")], remove];
  }

  async #act(job, action) {
    try {
      this.#jobs.put(await call(`/api/v1/jobs/${job.job_id}/${action}`, { method: "POST" }));
      say(t(`said.${action}`, { name: nameOf(job) }));
    } catch (error) {
      toast(error.message);
    }
    this.#jobs.refresh();
  }

  #place(models) {
    const keys = new Set(models.map(([key]) => key));
    for (const [key, row] of this.#rows) {
      if (!keys.has(key)) {
        this.#leave(row);
        this.#rows.delete(key);
      }
    }
    models.forEach(([key, model], index) => {
      if (!this.#rows.has(key)) this.#rows.set(key, new Row());
      const row = this.#rows.get(key);
      row.update(model);
      if (this.items.children[index] !== row.node) this.items.insertBefore(row.node, this.items.children[index] ?? null);
    });
  }

  // A row that goes while it has the focus hands it to its neighbour.
  #leave(row) {
    const neighbour = row.node.contains(document.activeElement) && (row.node.nextElementSibling ?? row.node.previousElementSibling);
    row.node.remove();
    if (neighbour === null) this.node.querySelector("h1").focus();
    else if (neighbour) neighbour.querySelector("a, button")?.focus();
  }

  #drawAfter(count) {
    const { state, problem, cursor } = this.#jobs;
    const filtered = Boolean(chosen.status || chosen.name);
    const kind = state === "failed" ? `failed ${problem.message}` : state === "loading" ? "loading" : cursor ? "more" : count ? "end" : filtered ? "none" : "empty";
    if (kind === this.kind) return;
    this.kind = kind;
    this.after.className = count ? "more" : "";
    this.items.setAttribute("aria-busy", String(kind === "loading"));
    this.after.replaceChildren(...afterList(kind.split(" ")[0], problem, () => this.#jobs.refresh()));
  }
}

function afterList(kind, problem, again) {
  if (kind === "loading") return [el("div", { class: "jobs", "aria-hidden": "true" }, [1, 2, 3].map(() => el("div", { class: "job" }, el("span", { class: "mark" }), el("div", { class: "bone" }))))];
  if (kind === "failed") return [el("div", { class: "notice bad", role: "alert" }, icon("alert"), el("div", {}, el("h3", {}, t("list.failed")), el("p", {}, problem.message)), button(t("again"), again))];
  if (kind === "empty") return [empty("wave", t("list.empty"), t("list.empty.hint"))];
  if (kind === "none") return [empty("search", t("list.none"), t("list.none.hint"))];
  return kind === "more" ? [el("p", { class: "small" }, t("list.more"))] : [];
}

const empty = (symbol, title, hint) => el("div", { class: "empty" }, icon(symbol), el("h2", {}, title), el("p", {}, hint));
