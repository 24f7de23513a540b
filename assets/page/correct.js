// Corrections: a segment's text is edited in place and stored beside the machine's, with the version that was read.
import { say, toast } from "./announce.js";
import { call } from "./api.js";
import { button, el, write } from "./dom.js";
import { follow } from "./events.js";
import { t } from "./i18n.js";

const MAX_LETTERS = 2000;

// reader: has `id`, `job`, `transcript` and replaced(index, segment).
export class Corrections {
  #open = new Map();

  constructor(reader) {
    this.reader = reader;
  }

  get allowed() {
    return this.reader.job.status === "COMPLETED";
  }

  edit(index) {
    const { transcript } = this.reader;
    if (!this.allowed) {
      toast(t("correct.later"));
    } else if (this.#open.has(index)) {
      this.#open.get(index).input.focus();
    } else if (transcript.segments[index]) {
      transcript.reveal(index, { block: "nearest" });
      this.#open.set(index, new Editor(this, index));
    }
  }

  closed(index) {
    this.#open.delete(index);
    this.reader.transcript.keep(index, false);
    this.reader.transcript.redraw(index);
    this.reader.transcript.focus(index);
  }

  // Show what others correct meanwhile.
  watch(signal) {
    const newest = this.reader.transcript.segments.reduce((version, segment) => Math.max(version, segment.version ?? 0), 0);
    follow(`/api/v1/jobs/${this.reader.id}/corrections/events?after=${newest}`, { signal, onEvent: (kind, data) => { if (kind === "correction") this.#arrived(data); } });
  }

  #arrived({ id, version, text, author, corrected_at: when }) {
    const { transcript } = this.reader;
    const index = transcript.segments.findIndex((segment) => segment.id === id);
    const segment = transcript.segments[index];
    if (!segment || segment.version >= version) return;
    const machine = segment.correction?.machine_text ?? segment.text;
    const correction = text === null ? undefined : { machine_text: machine, author, corrected_at: when };
    const changed = { ...segment, version, text: text ?? machine, correction };
    if (this.#open.has(index)) this.#open.get(index).overtaken(changed);
    else this.reader.replaced(index, changed);
  }
}

// The form in place of a segment's text.
class Editor {
  constructor(corrections, index) {
    const { transcript } = corrections.reader;
    Object.assign(this, { corrections, index, segment: transcript.segments[index] });
    const { correction, text } = this.segment;
    this.input = el("textarea", { class: "input", rows: 1, maxlength: MAX_LETTERS, "aria-label": t("correct.label"), "aria-describedby": `keys-${index}`, dir: "auto", spellcheck: "true" });
    this.input.value = text;
    this.problem = el("p", { class: "problem", role: "alert" });
    this.conflict = el("div", { class: "notice warn", hidden: true });
    const machine = correction && el("p", { class: "small soft" }, t("correct.was", { text: correction.machine_text }));
    const restore = correction && button(t("correct.restore"), () => this.restore(), { kind: "plain compact", symbol: "retry" });
    this.form = el("form", { class: "editor", on: { submit: (event) => { event.preventDefault(); this.save(); }, keydown: (event) => this.#key(event) } },
      this.input, machine, this.problem, this.conflict,
      el("div", { class: "actions" }, el("span", { class: "small soft hint", id: `keys-${index}` }, t("correct.keys")), restore, button(t("cancel"), () => this.close(), { kind: "plain compact" }), el("button", { class: "button primary compact" }, t("correct.save"))));
    transcript.keep(index, true);
    const row = transcript.row(index);
    row.classList.add("editing");
    row.querySelector(".said").replaceWith(this.form);
    this.input.addEventListener("input", () => this.#fit());
    this.#fit();
    this.input.focus();
  }

  #fit() {
    this.input.style.height = "auto";
    this.input.style.height = `${this.input.scrollHeight + 2}px`;
  }

  #key(event) {
    event.stopPropagation();
    if (event.key === "Escape") this.close();
    else if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      this.save();
    }
  }

  close() {
    if (this.theirs) this.corrections.reader.replaced(this.index, this.theirs);
    this.corrections.closed(this.index);
  }

  // Somebody else saved this segment while it is edited here.
  overtaken(theirs) {
    this.theirs = theirs;
    this.#showConflict();
  }

  async save() {
    if (this.input.value.trim() === this.segment.text && !this.theirs) {
      this.close();
      return;
    }
    await this.#change("", { method: "PUT", json: { text: this.input.value } }, "correct.saved");
  }

  restore() {
    return this.#change("/correction", { method: "DELETE" }, "correct.restored");
  }

  async #change(path, request, said) {
    const { reader } = this.corrections;
    write(this.problem, "");
    try {
      const changed = await call(`/api/v1/jobs/${reader.id}/segments/${this.segment.id}${path}`, { ...request, more: { "If-Match": `"${this.segment.version ?? 0}"` } });
      reader.replaced(this.index, changed);
      this.theirs = null;
      this.corrections.closed(this.index);
      say(t(said));
    } catch (error) {
      if (error.status === 412 && error.body?.current) this.overtaken(error.body.current);
      else write(this.problem, error.message);
    }
  }

  // Both versions are shown; nothing is lost until a person has chosen.
  #showConflict() {
    const { correction, text } = this.theirs;
    const take = () => this.close();
    const overwrite = () => { this.segment = this.theirs; this.theirs = null; this.conflict.hidden = true; this.save(); };
    this.conflict.replaceChildren(el("div", { role: "alert" },
      el("p", {}, t(correction ? "correct.conflict" : "correct.conflict.restored", { author: correction?.author ?? "" })), el("p", { class: "theirs", dir: "auto" }, text),
      el("div", { class: "actions" }, button(t("correct.theirs"), take, { kind: "compact" }), button(t("correct.mine"), overwrite, { kind: "compact primary" }))));
    this.conflict.hidden = false;
  }
}
