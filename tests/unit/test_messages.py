"""Messages of the broker: encoding, levels, delays and topology."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.config import QueueType
from core.errors import SettingsError
from core.messaging.dispatch import MAX_DELAY, normalize_delays, pick_delay
from core.messaging.port import Message, MessageType, NewerMessage, QueueName, UndecodableMessage, decode
from core.messaging.topology import Topology, check_quorum, mismatch_text


@given(
    st.sampled_from([MessageType.PREPARE, MessageType.FINALISE]),
    st.text(max_size=40),
    st.integers(0, 9),
    st.integers(0, 50),
    st.none() | st.text(max_size=20),
)
def test_any_message_survives_its_encoding(
    kind: MessageType, job_id: str, level: int, failures: int, name: str | None
) -> None:
    message = Message(kind, job_id, level=level, failures=failures, original_filename=name)
    assert decode(message.encode()) == message


def test_the_body_is_readable_json() -> None:
    body = json.loads(Message(MessageType.TRANSCRIBE, "j", 3, language="vi", original_filename="tệp.mp3").encode())
    assert (body["v"], body["type"], body["job_id"], body["chunk_index"]) == (1, "Transcribe", "j", 3)
    assert body["original_filename"] == "tệp.mp3"


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_rejected(body: bytes) -> None:
    with pytest.raises(UndecodableMessage):
        decode(b"x" + body)


BAD = [
    {"v": 1},
    {"v": 1, "type": "Dance", "job_id": "j"},
    {"v": 1, "type": "Prepare", "job_id": 5},
    {"v": 1, "type": "Prepare", "job_id": "j", "level": 10},
    {"v": 1, "type": "Prepare", "job_id": "j", "failures": -1},
    {"v": 1, "type": "Prepare", "job_id": "j", "failures": True},
    {"v": 1, "type": "Transcribe", "job_id": "j"},
    {"v": 1, "type": "Transcribe", "job_id": "j", "chunk_index": "3"},
    {"v": 1, "type": "Replay", "job_id": "j"},
    {"type": "Prepare", "job_id": "j"},
    {"v": "one", "type": "Prepare", "job_id": "j"},
    [],
    None,
]


@pytest.mark.parametrize("body", BAD)
def test_invalid_fields_are_rejected(body: object) -> None:
    with pytest.raises(UndecodableMessage):
        decode(json.dumps(body).encode())


def test_a_newer_version_has_its_own_error() -> None:
    with pytest.raises(NewerMessage):
        decode(b'{"v": 2, "anything": 1}')


def test_unknown_fields_are_ignored() -> None:
    assert decode(b'{"v":1,"type":"Prepare","job_id":"j","colour":"red"}').job_id == "j"


def test_each_message_type_has_its_queue() -> None:
    queues = {kind: Message(kind, "j", 0, token="t").queue for kind in MessageType}
    assert queues == {
        MessageType.PREPARE: QueueName.JOBS,
        MessageType.FETCH: QueueName.FETCH,
        MessageType.FINALISE: QueueName.FINALISE,
        MessageType.TRANSCRIBE: QueueName.CHUNKS,
        MessageType.REPLAY: QueueName.DEAD,
    }


def test_the_nearest_delay_is_picked() -> None:
    assert normalize_delays(()) == (2.0,)
    assert [pick_delay((2, 6, 18), delay) for delay in (0.1, 2, 3, 18, 99, MAX_DELAY)] == [2, 2, 6, 18, 18, 18]


def test_the_topology() -> None:
    topology = Topology((2.0, 6.0), QueueType.CLASSIC, 100)
    queues = topology.queues()
    assert queues["stt_jobs"] == {"x-dead-letter-exchange": "stt_dlx", "x-max-priority": 10}
    assert queues["stt_retry_2s"] == {"x-message-ttl": 2000, "x-dead-letter-exchange": "stt"}
    assert queues["stt_jobs_dlq"] == {"x-message-ttl": 100_000}
    quorum = Topology((2.0,), QueueType.QUORUM, 100).queues()["stt_chunks"]
    assert (quorum["x-queue-type"], quorum["x-delivery-limit"]) == ("quorum", -1)


def test_quorum_queues_need_a_recent_server() -> None:
    check_quorum("4.3.0")
    with pytest.raises(SettingsError, match="QUEUE_TYPE"):
        check_quorum("3.10.8")


def test_the_error_for_a_queue_mismatch_names_the_remedy() -> None:
    assert "delete it in the management UI" in mismatch_text("stt_jobs", "x")
