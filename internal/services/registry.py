"""The services of one process."""

from __future__ import annotations

from dataclasses import dataclass

from internal.services.api_keys import ApiKeys
from internal.services.authentication import Authenticator
from internal.services.dead_letters import DeadLetters
from internal.services.health import HealthCheck
from internal.services.job_events import JobEvents
from internal.services.job_views import JobViews
from internal.services.jobs import Jobs
from internal.services.models import Models
from internal.services.results import Results
from internal.services.retention import Retention
from internal.services.statistics import Statistics
from internal.services.stream_limiter import StreamLimiter
from internal.services.submissions import Submissions
from internal.services.submit_options import SubmitOptionsValidator
from internal.services.transcriptions import Transcriptions
from internal.services.upload_links import UploadLinks
from internal.services.url_submissions import UrlSubmissions


@dataclass(frozen=True, slots=True)
class Services:
    """The services, built by `internal/bootstrap.py`."""

    api_keys: ApiKeys
    authenticator: Authenticator
    dead_letters: DeadLetters
    health_check: HealthCheck
    job_events: JobEvents
    job_views: JobViews
    jobs: Jobs
    models: Models
    results: Results
    retention: Retention
    statistics: Statistics
    stream_limiter: StreamLimiter
    submissions: Submissions
    submit_options: SubmitOptionsValidator
    transcriptions: Transcriptions
    upload_links: UploadLinks
    url_submissions: UrlSubmissions
