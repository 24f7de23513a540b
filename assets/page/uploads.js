// Recordings on their way to the service: two at a time, sent again under the same Idempotency-Key when a connection breaks.
import { ApiError, call, currentKey, headers, newId, pause, problemOf, renewKey } from "./api.js";
import { t } from "./i18n.js";
import { recallHere, rememberHere } from "./memory.js";
import { submitFields } from "./options.js";

const AT_ONCE = 2;
const TRIES = 8;
const MAX_WAIT = 30;
export const EXTENSIONS = ["mp3", "wav", "m4a", "mp4", "aac", "ogg", "flac", "wma", "webm", "mkv", "avi", "mov", "opus", "aiff", "amr"];

export const uploads = new EventTarget();
const items = [];
// uploads that a reload of this tab has cut off: their files have to be chosen again
let broken = recallHere("uploads") ?? [];

export const list = () => items;
export const interrupted = () => broken;
const changed = () => uploads.dispatchEvent(new Event("change"));
export const isSupported = (name) => EXTENSIONS.includes(name.split(".").pop().toLowerCase());

// state: waiting, sending, retrying, failed or accepted. sent: bytes; rate: bytes per second.
class Upload {
  constructor(name, size, fields, key = newId()) {
    Object.assign(this, { id: newId(), name, size, fields, key, state: "waiting", sent: 0, rate: 0, problem: null, tries: 0 });
    this.aborted = new AbortController();
  }

  get remaining() {
    return this.rate ? (this.size - this.sent) / this.rate : null;
  }

  async run() {
    for (this.tries = 1; ; this.tries += 1) {
      this.state = "sending";
      changed();
      try {
        return await this.send();
      } catch (error) {
        if (this.aborted.signal.aborted) throw error;
        if (!error.passing || this.tries >= TRIES) throw error;
        this.state = "retrying";
        this.problem = error;
        changed();
        await this.untilWorthwhile(error);
        if (this.aborted.signal.aborted) throw error;
      }
    }
  }

  // Wait for the network, or a time that grows. A quota says itself how long.
  async untilWorthwhile(error) {
    const seconds = error.retryAfter ?? Math.min(MAX_WAIT, 2 ** (this.tries - 1));
    const again = new AbortController();
    const wake = () => again.abort();
    addEventListener("online", wake, { once: true });
    this.aborted.signal.addEventListener("abort", wake, { once: true });
    await pause(seconds * 1000, again.signal);
    removeEventListener("online", wake);
  }
}

class FileUpload extends Upload {
  constructor(file, fields, key) {
    super(file.webkitRelativePath || file.name, file.size, fields, key);
    this.file = file;
  }

  send() {
    const form = new FormData();
    for (const [name, value] of Object.entries(this.fields)) form.append(name, value);
    form.append("file", this.file, this.file.name);
    return transfer(form, this);
  }
}

class LinkUpload extends Upload {
  constructor(address, fields) {
    super(address, 0, fields);
    this.address = address;
  }

  async send() {
    const json = { ...this.fields, words: true, request_id: this.key, media_url: this.address };
    return call("/api/v1/transcribe", { method: "POST", json, signal: this.aborted.signal });
  }
}

// fetch reports no progress of a body that is sent, XMLHttpRequest does
async function transfer(form, upload) {
  const key = currentKey();
  try {
    return await transferOnce(form, upload);
  } catch (error) {
    if (error.status !== 401) throw error;
    await renewKey(key);
    return transferOnce(form, upload);
  }
}

function transferOnce(form, upload) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const started = performance.now();
    request.open("POST", "/api/v1/upload");
    for (const [name, value] of Object.entries(headers({ "Idempotency-Key": upload.key }))) request.setRequestHeader(name, value);
    request.responseType = "json";
    request.upload.onprogress = (event) => {
      upload.sent = Math.min(upload.size, event.loaded);
      upload.rate = (event.loaded / (performance.now() - started)) * 1000;
      changed();
    };
    request.onload = () => {
      if (request.status < 300) resolve(request.response);
      else reject(problemOf(request.status, request.response, request.getResponseHeader("retry-after")));
    };
    request.onerror = () => reject(new ApiError(0, "NETWORK", t("error.network")));
    request.onabort = () => reject(new ApiError(0, "ABORTED", ""));
    upload.aborted.signal.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

// Queue files; one that a reload cut off goes on under its old key.
export function addFiles(files) {
  for (const file of files) {
    const earlier = broken.find((entry) => isSame(entry, file));
    if (earlier) broken = broken.filter((entry) => entry !== earlier);
    const upload = new FileUpload(file, earlier?.fields ?? submitFields(), earlier?.key);
    items.push(upload);
    if (!isSupported(file.name)) refuse(upload, "UNSUPPORTED", t("drop.unsupported", { formats: EXTENSIONS.join(", ") }));
    else if (!file.size) refuse(upload, "EMPTY", t("drop.empty"));
  }
  next();
}

export function addLink(address) {
  items.push(new LinkUpload(address, submitFields()));
  next();
}

function refuse(upload, code, message) {
  upload.state = "failed";
  upload.problem = new ApiError(400, code, message);
}

const isSame = (entry, file) => entry.name === file.name && entry.size === file.size && entry.modified === file.lastModified;

function next() {
  const running = items.filter((upload) => upload.state === "sending" || upload.state === "retrying").length;
  for (const upload of items.filter((item) => item.state === "waiting").slice(0, AT_ONCE - running)) start(upload);
  keep();
  changed();
}

async function start(upload) {
  upload.state = "sending";
  try {
    const accepted = await upload.run();
    upload.state = "accepted";
    uploads.dispatchEvent(new CustomEvent("accepted", { detail: { upload, accepted } }));
    remove(upload);
  } catch (error) {
    if (!upload.aborted.signal.aborted) {
      upload.state = "failed";
      upload.problem = error;
    }
  }
  next();
}

export function remove(upload) {
  upload.aborted.abort();
  const index = items.indexOf(upload);
  if (index >= 0) items.splice(index, 1);
  next();
}

export function again(upload) {
  upload.state = "waiting";
  upload.problem = null;
  next();
}

export function dismiss(entry) {
  broken = broken.filter((other) => other !== entry);
  next();
}

function keep() {
  const unsent = items.filter((upload) => upload.file && upload.state !== "failed" && upload.state !== "accepted");
  const entries = unsent.map(({ file, fields, key }) => ({ name: file.name, size: file.size, modified: file.lastModified, fields, key }));
  rememberHere("uploads", [...broken, ...entries]);
}

addEventListener("beforeunload", (event) => {
  if (items.some((upload) => upload.file && upload.state !== "failed")) event.preventDefault();
});
