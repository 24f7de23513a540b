// Deleting a job, with a few seconds to undo it.
import { toast } from "./announce.js";
import { send } from "./api.js";
import { t } from "./i18n.js";
import { nameOf } from "./row.js";

const UNDO_SECONDS = 7;
const leaving = new Map();

// The job is deleted when the time to undo is over, or the page is left. hide(true) takes it out of the list, hide(false) puts it back.
export function removeJob(job, { hide }) {
  hide(true);
  leaving.set(job.job_id, job);
  toast(t("deleted", { name: nameOf(job) }), {
    seconds: UNDO_SECONDS,
    action: t("undo"),
    onAction: () => { leaving.delete(job.job_id); hide(false); },
    onGone: () => erase(job, hide),
  });
}

async function erase(job, hide) {
  if (!leaving.delete(job.job_id)) return;
  try {
    await send(`/api/v1/jobs/${job.job_id}`, { method: "DELETE", keepalive: true });
  } catch (error) {
    if (error.status === 404) return;
    hide(false);
    toast(error.message);
  }
}

addEventListener("pagehide", () => {
  for (const job of leaving.values()) erase(job, () => {});
});
