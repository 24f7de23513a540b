"""The services of one process."""

from __future__ import annotations

from dataclasses import dataclass

from core.config import BrokerKind, Settings
from core.database import Database
from core.messaging.port import Broker
from core.outbound import Outbound
from core.secret import Secret
from core.storage.port import Storage
from internal.services.api_keys import ApiKeys
from internal.services.authentication import Authenticator
from internal.services.corrections import Corrections
from internal.services.dead_letters import DeadLetters
from internal.services.estimates import Estimator
from internal.services.health import HealthCheck
from internal.services.idempotency import IdempotentRequests
from internal.services.job_events import JobEvents
from internal.services.job_views import JobViews
from internal.services.job_watcher import JobWatcher
from internal.services.jobs import Jobs
from internal.services.limiting import Limiter
from internal.services.media import Media
from internal.services.models import Models
from internal.services.publishing import Publisher
from internal.services.results import Results
from internal.services.retention import Retention
from internal.services.statistics import Statistics
from internal.services.stream_limiter import StreamLimiter
from internal.services.submissions import Submissions
from internal.services.submit_options import SubmitOptionsValidator
from internal.services.transcriptions import Transcriptions
from internal.services.upload_links import UploadLinks
from internal.services.url_submissions import UrlSubmissions
from repositories.corrections import list_states


@dataclass(frozen=True, slots=True)
class Services:
    """The services that routes and commands use."""

    api_keys: ApiKeys
    authenticator: Authenticator
    corrections: Corrections
    dead_letters: DeadLetters
    health_check: HealthCheck
    job_events: JobEvents
    job_views: JobViews
    jobs: Jobs
    media: Media
    models: Models
    results: Results
    statistics: Statistics
    stream_limiter: StreamLimiter
    submissions: Submissions
    submit_options: SubmitOptionsValidator
    transcriptions: Transcriptions
    upload_links: UploadLinks
    url_submissions: UrlSubmissions


def build_services(
    settings: Settings,
    database: Database,
    broker: Broker,
    storage: Storage,
    publisher: Publisher,
    secret: Secret,
    media: Outbound,
    webhooks: Outbound,
    retention: Retention,
    dead_letters: DeadLetters,
) -> Services:
    """Build the services from the adapters of the process."""
    # with BROKER=memory there is only this process, which counts requests in memory
    limiter = Limiter(settings, database, shared=settings.broker is not BrokerKind.MEMORY)
    idempotent_requests = IdempotentRequests(database)
    models = Models(database)
    watcher = JobWatcher(database)
    results = Results(database, storage)
    jobs = Jobs(database, storage, publisher, limiter, settings.failure_ttl_seconds)
    submissions = Submissions(database, storage, publisher, limiter, idempotent_requests, settings.max_upload_bytes)
    return Services(
        api_keys=ApiKeys(settings, database, secret),
        authenticator=Authenticator(settings, database, secret, limiter),
        corrections=Corrections(database, results, JobWatcher(database, list_states)),
        dead_letters=dead_letters,
        health_check=HealthCheck(database, broker, storage, settings.written_folders),
        job_events=JobEvents(database, watcher),
        job_views=JobViews(Estimator(database), database),
        jobs=jobs,
        media=Media(database, storage, secret, limiter),
        models=models,
        results=results,
        statistics=Statistics(database, broker),
        stream_limiter=StreamLimiter(settings.max_event_streams, settings.max_event_streams_per_owner),
        submissions=submissions,
        submit_options=SubmitOptionsValidator(
            models, webhooks, settings.languages, settings.default_language, settings.default_model
        ),
        transcriptions=Transcriptions(database, idempotent_requests, submissions, watcher),
        upload_links=UploadLinks(
            database,
            storage,
            secret,
            limiter,
            idempotent_requests,
            submissions,
            jobs,
            retention,
            settings.upload_link_ttl_seconds,
        ),
        url_submissions=UrlSubmissions(
            database, media, idempotent_requests, submissions, settings.minio_bucket, settings.job_ttl_seconds
        ),
    )
