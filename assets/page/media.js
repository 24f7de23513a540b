// The sound of a recording: a short-lived address for its player, and its loudness.
import { call } from "./api.js";

// Resolve to {url, video}. The address has a token for this job alone, since a player cannot send a key.
export async function addressOf(jobId) {
  const { url, content_type: type } = await call(`/api/v1/jobs/${jobId}/media-token`, { method: "POST" });
  return { url, video: type.startsWith("video/") };
}

// Resolve to the loudness of equal parts of the recording, 0 (60 dB below full scale) to 1.
export async function peaksOf(jobId) {
  const { peaks } = await call(`/api/v1/jobs/${jobId}/peaks`);
  return Array.from(atob(peaks), (letter) => letter.charCodeAt(0) / 255);
}
