// The jobs of the list: pages by cursor, kept up to date by polling, one running job by its events.
import { call, isConnected } from "./api.js";
import { follow } from "./events.js";

export const ENDED = new Set(["COMPLETED", "FAILED", "CANCELLED"]);
const PAGE = 50;
const MOST = 200;
const SOON = 1500;
const IDLE = 8000;
const HIDDEN = 20000;

// Fires `change`, and `ended` with a job whose end was seen. state: loading, ready or failed.
export class Jobs extends EventTarget {
  #jobs = new Map();
  #removed = new Set();
  #stopped = new AbortController();
  #followed = null;
  #polling = null;
  #version = 0;
  status = "";
  name = "";
  cursor = null;
  state = "loading";
  problem = null;
  loadingMore = false;

  get list() {
    return [...this.#jobs.values()].filter((job) => !this.#removed.has(job.job_id));
  }

  start() {
    document.addEventListener("visibilitychange", this.#wake);
    addEventListener("online", this.#wake);
    this.refresh();
  }

  stop() {
    this.#stopped.abort();
    clearTimeout(this.#polling);
    this.#followed?.abort();
    document.removeEventListener("visibilitychange", this.#wake);
    removeEventListener("online", this.#wake);
  }

  filter({ status, name }) {
    Object.assign(this, { status, name });
    this.state = "loading";
    this.cursor = null;
    this.#jobs.clear();
    this.#changed();
    return this.refresh();
  }

  #wake = () => {
    this.#followFirst();
    if (!document.hidden) this.refresh();
  };

  // Read the newest jobs again, as many as are shown, up to MOST.
  async refresh() {
    clearTimeout(this.#polling);
    const version = ++this.#version;
    const limit = Math.min(MOST, Math.max(PAGE, this.#jobs.size));
    try {
      const page = await this.#read({ limit });
      if (version !== this.#version) return;
      this.#merge(page);
      this.state = "ready";
      this.problem = null;
    } catch (error) {
      if (error.name === "AbortError" || version !== this.#version) return;
      this.problem = error;
      if (this.state === "loading") this.state = "failed";
    }
    this.#changed();
    this.#followFirst();
    this.#polling = setTimeout(() => this.refresh(), this.#delay());
  }

  #delay() {
    if (document.hidden) return HIDDEN;
    if (this.problem) return Math.max(SOON * 2, (this.problem.retryAfter ?? 0) * 1000);
    return this.list.some((job) => !ENDED.has(job.status)) ? SOON : IDLE;
  }

  #read({ limit, cursor }) {
    const query = new URLSearchParams({ limit });
    if (this.status) query.set("status", this.status);
    if (this.name) query.set("name", this.name);
    if (cursor) query.set("cursor", cursor);
    return call(`/api/v1/jobs?${query}`, { signal: this.#stopped.signal });
  }

  // A page replaces what it covers: a job that it lacks was deleted, or has left the filter.
  #merge({ jobs, next_cursor: cursor }) {
    const oldest = jobs.at(-1)?.created_at ?? "";
    const beyond = cursor ? [...this.#jobs.values()].filter((job) => job.created_at < oldest) : [];
    if (!beyond.length) this.cursor = cursor;
    for (const job of jobs) this.#noticeEnd(this.#jobs.get(job.job_id), job);
    const merged = [...jobs.map((job) => ({ ...job, heard: this.#jobs.get(job.job_id)?.heard })), ...beyond];
    this.#jobs = new Map(merged.map((job) => [job.job_id, job]));
  }

  #noticeEnd(before, job) {
    if (before && !ENDED.has(before.status) && ENDED.has(job.status)) this.dispatchEvent(new CustomEvent("ended", { detail: job }));
  }

  async more() {
    if (!this.cursor || this.loadingMore || !isConnected()) return;
    this.loadingMore = true;
    try {
      const page = await this.#read({ limit: PAGE, cursor: this.cursor });
      for (const job of page.jobs) if (!this.#jobs.has(job.job_id)) this.#jobs.set(job.job_id, job);
      this.cursor = page.next_cursor;
    } catch (error) {
      if (error.name !== "AbortError") this.problem = error;
    } finally {
      this.loadingMore = false;
    }
    this.#changed();
  }

  // Put a job's new state into the list at once, without waiting for the next poll.
  put(job) {
    const before = this.#jobs.get(job.job_id);
    if (!before) return;
    this.#noticeEnd(before, { ...before, ...job });
    this.#jobs.set(job.job_id, { ...before, ...job });
    this.#changed();
  }

  hide(jobId, hidden) {
    if (hidden) this.#removed.add(jobId);
    else this.#removed.delete(jobId);
    this.#changed();
  }

  // Browsers open six connections to a host, for all tabs together: one stream per visible tab, polling for the rest.
  #followFirst() {
    const first = document.hidden ? null : this.list.findLast((job) => job.status === "PROCESSING");
    if (this.#followed && this.#followed.jobId === first?.job_id) return;
    this.#followed?.abort();
    this.#followed = null;
    if (!first) return;
    const controller = Object.assign(new AbortController(), { jobId: first.job_id });
    this.#followed = controller;
    follow(`/api/v1/jobs/${first.job_id}/events`, { signal: controller.signal, onEvent: (kind, data) => this.#onEvent(first.job_id, kind, data) });
  }

  #onEvent(jobId, kind, data) {
    if (kind === "segment") this.put({ job_id: jobId, heard: data.text });
    else if (kind === "progress") this.put({ job_id: jobId, ...data });
    else this.refresh();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}
