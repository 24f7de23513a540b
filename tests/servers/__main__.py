"""`make services`: PostgreSQL, RabbitMQ and MinIO in the foreground, with their data in .run/ or SERVICES_FOLDER."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

from tests.servers import minio, postgres, rabbitmq

FOLDER = Path(__file__).resolve().parents[2] / ".run" / "services"


def main(folder: Path) -> None:
    programs, program = postgres.programs_folder(), minio.program_path()
    if programs is None or program is None or not rabbitmq.DEBIAN_PROGRAM.exists():
        raise SystemExit("PostgreSQL, RabbitMQ or MinIO is missing; see the lines above for how to install it.")
    database = postgres.LocalPostgres(programs, folder / "postgres")
    broker = rabbitmq.LocalRabbitMQ(rabbitmq.DEBIAN_PROGRAM, folder / "rabbitmq")
    storage = minio.LocalMinio(program, folder / "minio")
    servers = (database, broker, storage)
    stop_requested = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop_requested.set())
    try:
        for server in servers:
            server.start()
        show(database, broker, storage)
        stop_requested.wait()
    finally:
        for server in servers:
            server.stop()


def show(database: postgres.LocalPostgres, broker: rabbitmq.LocalRabbitMQ, storage: minio.LocalMinio) -> None:
    lines = {
        "DATABASE_URL": database.url,
        "BROKER": "rabbitmq",
        "RABBITMQ_URL": broker.url,
        "STORAGE": "minio",
        "MINIO_ENDPOINT": storage.endpoint,
        "MINIO_ACCESS_KEY": storage.access_key,
        "MINIO_SECRET_KEY": storage.secret_key,
        "ALLOW_DEFAULT_CREDENTIALS": "true",
    }
    print("\n".join(f"export {name}={value}" for name, value in lines.items()))  # noqa: T201
    pages = f"RabbitMQ's page  {broker.management}\nMinIO's console  http://{storage.console}"
    print(f"\n{pages}\nCtrl-C ends all three", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(Path(os.environ.get("SERVICES_FOLDER", FOLDER)))
