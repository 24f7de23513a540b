// One recording: its text, in step with its sound, while it is transcribed and after.
import { say, toast } from "./announce.js";
import { call } from "./api.js";
import { Corrections } from "./correct.js";
import { button, el, icon, write } from "./dom.js";
import { follow } from "./events.js";
import { copyMenu, downloadMenu } from "./exports.js";
import { clock, moment, number, percent, remaining } from "./format.js";
import { t } from "./i18n.js";
import { ENDED } from "./jobs.js";
import { clearMarks, find, unsurePlaces } from "./marks.js";
import { addressOf, peaksOf } from "./media.js";
import { Player } from "./player.js";
import { nameOf } from "./row.js";
import { listenForKeys, shortcutsDialog } from "./shortcuts.js";
import { Stepper } from "./stepper.js";
import { Follower } from "./follower.js";
import { Transcript } from "./transcript.js";

const NEW_PLACE = 4000;

export function open(main, { id, query }) {
  const reader = new Reader(id, Number(query.get("t")) || null);
  main.append(reader.node);
  reader.load();
  return { stop: () => reader.stop(), moved: (to) => reader.moved(to) };
}

class Reader {
  #stopped = new AbortController();
  #placed = 0;

  constructor(id, place) {
    Object.assign(this, { id, place });
    this.title = el("h1", { tabindex: "-1", dir: "auto" }, t("reader.loading"));
    this.facts = el("p", { class: "facts soft" });
    this.actions = el("div", { class: "actions" });
    this.notice = el("div");
    this.tools = el("div", { class: "reader-tools", hidden: true });
    this.body = el("div", { class: "reader-body" }, el("div", { class: "bones", "aria-hidden": "true" }, [1, 2, 3, 4, 5].map(() => el("div", { class: "bone" }))));
    this.dock = el("div", { class: "dock" });
    this.node = el("div", { class: "reader" },
      el("a", { class: "back", href: "#/" }, icon("back"), t("nav.home")),
      el("header", { class: "reader-head" }, el("div", {}, this.title, this.facts), this.actions), this.notice, this.tools, this.body, this.dock);
  }

  async load() {
    try {
      this.job = await call(`/api/v1/jobs/${this.id}`, { signal: this.#stopped.signal });
      this.result = await call(`/api/v1/result/${this.id}?partial=true`, { signal: this.#stopped.signal });
    } catch (error) {
      if (error.name !== "AbortError") this.#showProblem(error);
      return;
    }
    this.#showJob();
    this.#showText();
    if (!ENDED.has(this.job.status)) this.#followJob();
  }

  stop() {
    this.#stopped.abort();
    this.player?.stop();
    this.transcript?.stop();
    this.follower?.stop();
    clearMarks();
  }

  moved(query) {
    const seconds = Number(query.get("t"));
    if (query.has("t") && Number.isFinite(seconds)) this.#goTo(seconds);
  }

  #showProblem(error) {
    write(this.title, t(error.status === 404 ? "reader.missing" : "reader.failed"));
    this.body.replaceChildren(el("div", { class: "notice bad", role: "alert" }, icon("alert"), el("div", {}, el("p", {}, error.status === 404 ? t("reader.missing.hint") : error.message)),
      button(t("again"), () => this.load())));
    this.title.focus();
  }

  #showJob() {
    const { job, result } = this;
    const name = nameOf(job);
    document.title = `${name} · async-stt`;
    write(this.title, name);
    const language = job.detected_language ?? job.language;
    const facts = [job.duration_seconds && clock(job.duration_seconds), t(`language.${language}`), result.word_count && t("reader.words", { count: result.word_count, n: number(result.word_count) }), job.model, moment(job.created_at)];
    this.facts.replaceChildren(...facts.filter(Boolean).map((fact) => el("span", {}, fact)));
    this.#showNotice();
  }

  // Progress, or why it ended without a text, and what can be done.
  #showNotice() {
    const { job } = this;
    if (job.status === "COMPLETED") {
      this.notice.replaceChildren();
    } else if (ENDED.has(job.status)) {
      this.notice.replaceChildren(el("div", { class: `notice ${job.status === "FAILED" ? "bad" : "warn"}`, role: "alert" }, icon("alert"),
        el("div", {}, el("h2", {}, t(`state.${job.status}`)), job.status === "FAILED" && el("p", {}, job.error_message)), button(t("again"), () => this.#retry(), { symbol: "retry" })));
    } else {
      this.#showProgress();
    }
  }

  #showProgress() {
    const { job } = this;
    if (!this.bar?.isConnected) {
      this.bar = el("progress", { max: 100, "aria-label": t("progress.of", { name: nameOf(job) }) });
      this.left = el("span", { class: "numeric" });
      this.state = el("span");
      this.notice.replaceChildren(el("div", { class: "running" }, el("p", { class: "small soft" }, this.state, this.left), this.bar));
    }
    write(this.state, job.chunks_total ? t("job.chunks", { done: job.chunks_completed, total: job.chunks_total }) : t(job.status === "PENDING" ? "job.waiting" : "job.preparing"));
    write(this.left, [job.progress ? percent(job.progress) : "", remaining(job.estimated_time_seconds)].filter(Boolean).join(" · "));
    if (job.progress || job.chunks_total) this.bar.value = job.progress;
  }

  async #retry() {
    try {
      this.job = { ...this.job, ...(await call(`/api/v1/jobs/${this.id}/retry`, { method: "POST" })) };
      this.#showNotice();
      this.#followJob();
      this.title.focus();
    } catch (error) {
      toast(error.message);
    }
  }

  #followJob() {
    follow(`/api/v1/jobs/${this.id}/events`, { signal: this.#stopped.signal, onEvent: (kind, data) => this.#onEvent(kind, data) });
  }

  #onEvent(kind, data) {
    if (kind === "segment") {
      this.transcript.put(data);
      this.#showEmptiness();
    } else if (kind === "progress") {
      this.job = { ...this.job, ...data };
      this.#showNotice();
    } else {
      if (kind === "completed") say(t("said.COMPLETED", { name: nameOf(this.job) }));
      this.#ended();
    }
  }

  async #ended() {
    try {
      this.job = await call(`/api/v1/jobs/${this.id}`);
      this.result = await call(`/api/v1/result/${this.id}?partial=true`);
    } catch (error) {
      this.#showProblem(error);
      return;
    }
    this.transcript.set(this.result.segments);
    this.#showJob();
    this.#showTools();
    this.#refreshPlaces();
    this.#showEmptiness();
    this.#watchCorrections();
    if (!this.player) this.#showPlayer();
  }

  #watchCorrections() {
    if (this.job.status === "COMPLETED") this.corrections.watch(this.#stopped.signal);
  }

  #showText() {
    const { result } = this;
    this.corrections = new Corrections(this);
    this.transcript = new Transcript({ onSeek: (seconds) => this.#seek(seconds), onEdit: (index) => this.corrections.edit(index) });
    this.transcript.set(result.segments);
    this.emptiness = el("p", { class: "empty" });
    this.body.replaceChildren(this.transcript.node, this.emptiness);
    this.#showTools();
    this.#showEmptiness();
    this.#watchCorrections();
    if (this.job.duration_seconds || ENDED.has(this.job.status)) this.#showPlayer();
    listenForKeys(this, this.#stopped.signal);
  }

  #showEmptiness() {
    const none = !this.transcript.segments.length;
    this.emptiness.hidden = !none;
    write(this.emptiness, none ? t(ENDED.has(this.job.status) ? "reader.silent" : "reader.soon") : "");
  }

  #showTools() {
    const { transcript } = this;
    const segments = () => transcript.segments;
    const go = (place) => { this.follower?.leave(); transcript.reveal(place.index); };
    if (!this.search) {
      this.found = new Stepper(transcript, "found", { label: (count) => (this.search.value ? t("search.count", { count }) : ""), onStep: go, labels: [t("search.before"), t("search.after")] });
      this.unsure = new Stepper(transcript, "unsure", { label: (count) => (count ? t("unsure.count", { count }) : ""), onStep: go, labels: [t("unsure.before"), t("unsure.after")] });
      this.unsure.holder = el("span", { class: "unsure-tools", title: t("unsure.hint") }, icon("unsure"), this.unsure.node);
      this.search = el("input", { class: "input", type: "search", placeholder: t("search"), "aria-label": t("search"), "aria-keyshortcuts": "/",
        on: { input: () => this.found.set(find(segments(), this.search.value)), keydown: (event) => { if (event.key === "Enter") this.found.step(event.shiftKey ? -1 : 1); } } });
      this.tools.append(el("div", { class: "search" }, icon("search"), this.search), this.found.node, this.unsure.holder,
        button(t("keys"), () => shortcutsDialog(), { symbol: "help", square: true, kind: "plain compact keyboard" }));
    }
    this.tools.hidden = false;
    const name = nameOf(this.job);
    this.actions.replaceChildren(copyMenu({ segments, link: () => this.#link() }), this.job.status === "COMPLETED" ? downloadMenu(this.job, name) : "");
    this.#refreshPlaces();
  }

  #refreshPlaces() {
    const { segments } = this.transcript;
    this.found.set(find(segments, this.search.value));
    this.unsure.set(unsurePlaces(segments));
  }

  // A person has changed a segment, here or elsewhere.
  replaced(index, segment) {
    this.transcript.segments[index] = segment;
    this.transcript.redraw(index);
    this.#refreshPlaces();
  }

  #showPlayer() {
    this.player = new Player({ source: () => addressOf(this.id), duration: this.job.duration_seconds ?? 0, title: nameOf(this.job) });
    this.follower = new Follower(this.player, this.transcript);
    this.dock.append(this.follower.node, this.player.node);
    this.body.prepend(this.player.stage);
    this.player.addEventListener("moved", () => this.#keepPlace(true));
    this.player.addEventListener("state", () => this.#keepPlace(true));
    this.player.addEventListener("time", () => this.#keepPlace(false));
    this.player.load();
    peaksOf(this.id).then((peaks) => this.player.strip.setPeaks(peaks), () => {});
    if (this.place !== null) this.#goTo(this.place);
  }

  #goTo(seconds) {
    this.player?.seek(seconds);
    this.follower?.catchUp();
  }

  #seek(seconds) {
    this.player?.seek(seconds);
    this.follower?.join();
  }

  #link() {
    return `${location.origin}/#/jobs/${this.id}?t=${Math.floor(this.player?.now ?? 0)}`;
  }

  // The address has place and time, so that it can be shared; it is written seldom, since browsers limit that.
  #keepPlace(now) {
    if (this.#stopped.signal.aborted || (!now && performance.now() - this.#placed < NEW_PLACE)) return;
    this.#placed = performance.now();
    history.replaceState(null, "", `#/jobs/${this.id}?t=${Math.floor(this.player.now)}`);
  }
}
