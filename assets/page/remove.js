// Deleting a job, and taking that back.
import { toast } from "./announce.js";
import { call, send } from "./api.js";
import { t } from "./i18n.js";
import { nameOf } from "./row.js";

// Delete at once, and offer to undo it. The service keeps the data for some minutes. onChange: the list has to be read again.
export async function removeJob(job, { hide, onChange }) {
  hide(true);
  try {
    await send(`/api/v1/jobs/${job.job_id}?undo=true`, { method: "DELETE" });
  } catch (error) {
    if (error.status !== 404) {
      hide(false);
      toast(error.message);
    }
    return;
  }
  toast(t("deleted", { name: nameOf(job) }), { seconds: 10, action: t("undo"), onAction: () => restore(job, hide, onChange) });
}

async function restore(job, hide, onChange) {
  try {
    await call(`/api/v1/jobs/${job.job_id}/restore`, { method: "POST" });
    hide(false);
    onChange();
  } catch (error) {
    toast(error.message);
  }
}
