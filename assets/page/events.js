// Server-sent events over fetch: EventSource cannot send a key as a header.
import { pause, send } from "./api.js";

const FINAL = new Set(["completed", "failed", "cancelled", "deleted"]);
const MAX_WAIT = 15000;

// Call onEvent(kind, data) for each event until a final one or 404 (kind `gone`), resuming after breaks.
// A hidden tab holds no stream: browsers open six connections to a host, for all tabs together.
export async function follow(path, { onEvent, signal }) {
  let last = "";
  for (let failures = 0; !signal.aborted; failures += 1) {
    await untilVisible(signal);
    const attempt = whileVisible(signal);
    try {
      const more = { Accept: "text/event-stream", ...(last ? { "Last-Event-ID": last } : {}) };
      const response = await send(path, { signal: attempt.signal, more });
      if (response.status === 204) return;
      for await (const event of parse(response.body)) {
        failures = 0;
        if (event.id !== undefined) last = event.id;
        if (signal.aborted) return;
        onEvent(event.kind, event.data);
        if (FINAL.has(event.kind)) return;
      }
    } catch (error) {
      if (error.status === 404 && !signal.aborted) {
        onEvent("gone", {});
        return;
      }
    } finally {
      attempt.release();
    }
    if (!document.hidden) await pause(Math.min(1000 * 2 ** failures, MAX_WAIT), signal);
  }
}

function untilVisible(signal) {
  if (!document.hidden) return null;
  return new Promise((resolve) => {
    const go = () => { if (!document.hidden || signal.aborted) resolve(); };
    document.addEventListener("visibilitychange", go, { signal });
    signal.addEventListener("abort", go);
  });
}

function whileVisible(signal) {
  const controller = new AbortController();
  const check = () => { if (document.hidden || signal.aborted) controller.abort(); };
  document.addEventListener("visibilitychange", check);
  signal.addEventListener("abort", check);
  check();
  const release = () => {
    document.removeEventListener("visibilitychange", check);
    signal.removeEventListener("abort", check);
  };
  return { signal: controller.signal, release };
}

async function* parse(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      buffer += value;
      const blocks = buffer.split(/\r?\n\r?\n/);
      buffer = blocks.pop();
      for (const block of blocks) {
        const event = decode(block);
        if (event) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function decode(block) {
  const event = { kind: "message", id: undefined };
  let data = "";
  for (const line of block.split(/\r?\n/)) {
    const [, field, value] = /^(\w*): ?(.*)$/.exec(line) ?? [];
    if (field === "event") event.kind = value;
    else if (field === "id") event.id = value;
    else if (field === "data") data += value;
  }
  return data ? { ...event, data: JSON.parse(data) } : null;
}
