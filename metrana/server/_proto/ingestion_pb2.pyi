from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ResumeStrategy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RESUME_STRATEGY_UNSPECIFIED: _ClassVar[ResumeStrategy]
    RESUME_STRATEGY_NEVER: _ClassVar[ResumeStrategy]
    RESUME_STRATEGY_ALLOW: _ClassVar[ResumeStrategy]

class NameConflict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NAME_CONFLICT_UNSPECIFIED: _ClassVar[NameConflict]
    NAME_CONFLICT_REFUSE: _ClassVar[NameConflict]
    NAME_CONFLICT_RENAME: _ClassVar[NameConflict]

class Scale(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCALE_UNSPECIFIED: _ClassVar[Scale]
    SCALE_ML_STEP: _ClassVar[Scale]
    SCALE_EPISODE: _ClassVar[Scale]
    SCALE_ENVIRONMENT_STEP: _ClassVar[Scale]

class BatchKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BATCH_KIND_UNSPECIFIED: _ClassVar[BatchKind]
    BATCH_KIND_POINTS: _ClassVar[BatchKind]
    BATCH_KIND_ATTRIBUTES: _ClassVar[BatchKind]
    BATCH_KIND_RENDERINGS: _ClassVar[BatchKind]

class RefusalCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REFUSAL_CODE_UNSPECIFIED: _ClassVar[RefusalCode]
    REFUSAL_CODE_VERSION: _ClassVar[RefusalCode]
    REFUSAL_CODE_UNAUTHENTICATED: _ClassVar[RefusalCode]
    REFUSAL_CODE_RUN_EXISTS: _ClassVar[RefusalCode]
    REFUSAL_CODE_ORCHESTRATION_MISMATCH: _ClassVar[RefusalCode]
    REFUSAL_CODE_RUN_NOT_FOUND: _ClassVar[RefusalCode]
    REFUSAL_CODE_RUN_DELETED: _ClassVar[RefusalCode]
    REFUSAL_CODE_PROJECT_NOT_FOUND: _ClassVar[RefusalCode]
    REFUSAL_CODE_INVALID: _ClassVar[RefusalCode]
    REFUSAL_CODE_SEQUENCE_GAP: _ClassVar[RefusalCode]
    REFUSAL_CODE_MALFORMED: _ClassVar[RefusalCode]
    REFUSAL_CODE_SUPERSEDED: _ClassVar[RefusalCode]
    REFUSAL_CODE_UNAVAILABLE: _ClassVar[RefusalCode]
RESUME_STRATEGY_UNSPECIFIED: ResumeStrategy
RESUME_STRATEGY_NEVER: ResumeStrategy
RESUME_STRATEGY_ALLOW: ResumeStrategy
NAME_CONFLICT_UNSPECIFIED: NameConflict
NAME_CONFLICT_REFUSE: NameConflict
NAME_CONFLICT_RENAME: NameConflict
SCALE_UNSPECIFIED: Scale
SCALE_ML_STEP: Scale
SCALE_EPISODE: Scale
SCALE_ENVIRONMENT_STEP: Scale
BATCH_KIND_UNSPECIFIED: BatchKind
BATCH_KIND_POINTS: BatchKind
BATCH_KIND_ATTRIBUTES: BatchKind
BATCH_KIND_RENDERINGS: BatchKind
REFUSAL_CODE_UNSPECIFIED: RefusalCode
REFUSAL_CODE_VERSION: RefusalCode
REFUSAL_CODE_UNAUTHENTICATED: RefusalCode
REFUSAL_CODE_RUN_EXISTS: RefusalCode
REFUSAL_CODE_ORCHESTRATION_MISMATCH: RefusalCode
REFUSAL_CODE_RUN_NOT_FOUND: RefusalCode
REFUSAL_CODE_RUN_DELETED: RefusalCode
REFUSAL_CODE_PROJECT_NOT_FOUND: RefusalCode
REFUSAL_CODE_INVALID: RefusalCode
REFUSAL_CODE_SEQUENCE_GAP: RefusalCode
REFUSAL_CODE_MALFORMED: RefusalCode
REFUSAL_CODE_SUPERSEDED: RefusalCode
REFUSAL_CODE_UNAVAILABLE: RefusalCode

class OpenRunRequest(_message.Message):
    __slots__ = ("min_version", "max_version", "run_id", "workspace_name", "project_name", "run_name", "experiment_name", "orchestration_id", "resume_strategy", "name_conflict", "create_project_if_missing", "by_run_id", "created_at_ms", "writer", "earlier_writers", "want_cursors")
    MIN_VERSION_FIELD_NUMBER: _ClassVar[int]
    MAX_VERSION_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    WORKSPACE_NAME_FIELD_NUMBER: _ClassVar[int]
    PROJECT_NAME_FIELD_NUMBER: _ClassVar[int]
    RUN_NAME_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENT_NAME_FIELD_NUMBER: _ClassVar[int]
    ORCHESTRATION_ID_FIELD_NUMBER: _ClassVar[int]
    RESUME_STRATEGY_FIELD_NUMBER: _ClassVar[int]
    NAME_CONFLICT_FIELD_NUMBER: _ClassVar[int]
    CREATE_PROJECT_IF_MISSING_FIELD_NUMBER: _ClassVar[int]
    BY_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    WRITER_FIELD_NUMBER: _ClassVar[int]
    EARLIER_WRITERS_FIELD_NUMBER: _ClassVar[int]
    WANT_CURSORS_FIELD_NUMBER: _ClassVar[int]
    min_version: int
    max_version: int
    run_id: bytes
    workspace_name: str
    project_name: str
    run_name: str
    experiment_name: str
    orchestration_id: str
    resume_strategy: ResumeStrategy
    name_conflict: NameConflict
    create_project_if_missing: bool
    by_run_id: bool
    created_at_ms: int
    writer: Writer
    earlier_writers: _containers.RepeatedCompositeFieldContainer[Writer]
    want_cursors: bool
    def __init__(self, min_version: _Optional[int] = ..., max_version: _Optional[int] = ..., run_id: _Optional[bytes] = ..., workspace_name: _Optional[str] = ..., project_name: _Optional[str] = ..., run_name: _Optional[str] = ..., experiment_name: _Optional[str] = ..., orchestration_id: _Optional[str] = ..., resume_strategy: _Optional[_Union[ResumeStrategy, str]] = ..., name_conflict: _Optional[_Union[NameConflict, str]] = ..., create_project_if_missing: _Optional[bool] = ..., by_run_id: _Optional[bool] = ..., created_at_ms: _Optional[int] = ..., writer: _Optional[_Union[Writer, _Mapping]] = ..., earlier_writers: _Optional[_Iterable[_Union[Writer, _Mapping]]] = ..., want_cursors: _Optional[bool] = ...) -> None: ...

class Writer(_message.Message):
    __slots__ = ("writer_id", "number", "logger_id", "host", "pid", "client_version", "opened_at_ms", "dead")
    WRITER_ID_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    LOGGER_ID_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    OPENED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    DEAD_FIELD_NUMBER: _ClassVar[int]
    writer_id: bytes
    number: int
    logger_id: str
    host: str
    pid: int
    client_version: str
    opened_at_ms: int
    dead: bool
    def __init__(self, writer_id: _Optional[bytes] = ..., number: _Optional[int] = ..., logger_id: _Optional[str] = ..., host: _Optional[str] = ..., pid: _Optional[int] = ..., client_version: _Optional[str] = ..., opened_at_ms: _Optional[int] = ..., dead: _Optional[bool] = ...) -> None: ...

class OpenRunResponse(_message.Message):
    __slots__ = ("opened", "refused", "cursors")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    CURSORS_FIELD_NUMBER: _ClassVar[int]
    opened: Opened
    refused: Refused
    cursors: CursorPage
    def __init__(self, opened: _Optional[_Union[Opened, _Mapping]] = ..., refused: _Optional[_Union[Refused, _Mapping]] = ..., cursors: _Optional[_Union[CursorPage, _Mapping]] = ...) -> None: ...

class Opened(_message.Message):
    __slots__ = ("version", "run_id", "workspace_name", "project_name", "run_name", "created", "requested_name", "server_version")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    WORKSPACE_NAME_FIELD_NUMBER: _ClassVar[int]
    PROJECT_NAME_FIELD_NUMBER: _ClassVar[int]
    RUN_NAME_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_NAME_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    run_id: bytes
    workspace_name: str
    project_name: str
    run_name: str
    created: bool
    requested_name: str
    server_version: str
    def __init__(self, version: _Optional[int] = ..., run_id: _Optional[bytes] = ..., workspace_name: _Optional[str] = ..., project_name: _Optional[str] = ..., run_name: _Optional[str] = ..., created: _Optional[bool] = ..., requested_name: _Optional[str] = ..., server_version: _Optional[str] = ...) -> None: ...

class CursorPage(_message.Message):
    __slots__ = ("series", "environments")
    SERIES_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENTS_FIELD_NUMBER: _ClassVar[int]
    series: _containers.RepeatedCompositeFieldContainer[SeriesCursor]
    environments: _containers.RepeatedCompositeFieldContainer[EnvironmentCursor]
    def __init__(self, series: _Optional[_Iterable[_Union[SeriesCursor, _Mapping]]] = ..., environments: _Optional[_Iterable[_Union[EnvironmentCursor, _Mapping]]] = ...) -> None: ...

class SeriesCursor(_message.Message):
    __slots__ = ("metric_name", "scale", "labels", "env_id", "rl_step", "episode", "step")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    METRIC_NAME_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    ENV_ID_FIELD_NUMBER: _ClassVar[int]
    RL_STEP_FIELD_NUMBER: _ClassVar[int]
    EPISODE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    metric_name: str
    scale: Scale
    labels: _containers.ScalarMap[str, str]
    env_id: str
    rl_step: int
    episode: int
    step: int
    def __init__(self, metric_name: _Optional[str] = ..., scale: _Optional[_Union[Scale, str]] = ..., labels: _Optional[_Mapping[str, str]] = ..., env_id: _Optional[str] = ..., rl_step: _Optional[int] = ..., episode: _Optional[int] = ..., step: _Optional[int] = ...) -> None: ...

class EnvironmentCursor(_message.Message):
    __slots__ = ("env_id", "rl_step", "episode", "ended_episode")
    ENV_ID_FIELD_NUMBER: _ClassVar[int]
    RL_STEP_FIELD_NUMBER: _ClassVar[int]
    EPISODE_FIELD_NUMBER: _ClassVar[int]
    ENDED_EPISODE_FIELD_NUMBER: _ClassVar[int]
    env_id: str
    rl_step: int
    episode: int
    ended_episode: int
    def __init__(self, env_id: _Optional[str] = ..., rl_step: _Optional[int] = ..., episode: _Optional[int] = ..., ended_episode: _Optional[int] = ...) -> None: ...

class ClientMessage(_message.Message):
    __slots__ = ("hello", "declarations", "batch", "heartbeat", "end")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    DECLARATIONS_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    declarations: Declarations
    batch: Batch
    heartbeat: Heartbeat
    end: WriterEnd
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., declarations: _Optional[_Union[Declarations, _Mapping]] = ..., batch: _Optional[_Union[Batch, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., end: _Optional[_Union[WriterEnd, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("min_version", "max_version", "run_id", "writer_id", "first_seq", "lost")
    MIN_VERSION_FIELD_NUMBER: _ClassVar[int]
    MAX_VERSION_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    WRITER_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEQ_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    min_version: int
    max_version: int
    run_id: bytes
    writer_id: bytes
    first_seq: int
    lost: _containers.RepeatedCompositeFieldContainer[SeqRange]
    def __init__(self, min_version: _Optional[int] = ..., max_version: _Optional[int] = ..., run_id: _Optional[bytes] = ..., writer_id: _Optional[bytes] = ..., first_seq: _Optional[int] = ..., lost: _Optional[_Iterable[_Union[SeqRange, _Mapping]]] = ...) -> None: ...

class SeqRange(_message.Message):
    __slots__ = ("first", "last")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    first: int
    last: int
    def __init__(self, first: _Optional[int] = ..., last: _Optional[int] = ...) -> None: ...

class Declarations(_message.Message):
    __slots__ = ("payload", "payload_crc32c")
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_CRC32C_FIELD_NUMBER: _ClassVar[int]
    payload: bytes
    payload_crc32c: int
    def __init__(self, payload: _Optional[bytes] = ..., payload_crc32c: _Optional[int] = ...) -> None: ...

class Batch(_message.Message):
    __slots__ = ("seq", "kind", "payload", "payload_crc32c", "urgent")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_CRC32C_FIELD_NUMBER: _ClassVar[int]
    URGENT_FIELD_NUMBER: _ClassVar[int]
    seq: int
    kind: BatchKind
    payload: bytes
    payload_crc32c: int
    urgent: bool
    def __init__(self, seq: _Optional[int] = ..., kind: _Optional[_Union[BatchKind, str]] = ..., payload: _Optional[bytes] = ..., payload_crc32c: _Optional[int] = ..., urgent: _Optional[bool] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("points_added", "points_dropped", "points_pending", "spooled_bytes")
    POINTS_ADDED_FIELD_NUMBER: _ClassVar[int]
    POINTS_DROPPED_FIELD_NUMBER: _ClassVar[int]
    POINTS_PENDING_FIELD_NUMBER: _ClassVar[int]
    SPOOLED_BYTES_FIELD_NUMBER: _ClassVar[int]
    points_added: int
    points_dropped: int
    points_pending: int
    spooled_bytes: int
    def __init__(self, points_added: _Optional[int] = ..., points_dropped: _Optional[int] = ..., points_pending: _Optional[int] = ..., spooled_bytes: _Optional[int] = ...) -> None: ...

class WriterEnd(_message.Message):
    __slots__ = ("last_seq", "died")
    LAST_SEQ_FIELD_NUMBER: _ClassVar[int]
    DIED_FIELD_NUMBER: _ClassVar[int]
    last_seq: int
    died: bool
    def __init__(self, last_seq: _Optional[int] = ..., died: _Optional[bool] = ...) -> None: ...

class ServerMessage(_message.Message):
    __slots__ = ("welcome", "ack", "ended", "refused", "reconnect")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    RECONNECT_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    ack: Ack
    ended: Ended
    refused: Refused
    reconnect: Reconnect
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., ack: _Optional[_Union[Ack, _Mapping]] = ..., ended: _Optional[_Union[Ended, _Mapping]] = ..., refused: _Optional[_Union[Refused, _Mapping]] = ..., reconnect: _Optional[_Union[Reconnect, _Mapping]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("version", "server_version", "stored_seq")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    STORED_SEQ_FIELD_NUMBER: _ClassVar[int]
    version: int
    server_version: str
    stored_seq: int
    def __init__(self, version: _Optional[int] = ..., server_version: _Optional[str] = ..., stored_seq: _Optional[int] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("seq",)
    SEQ_FIELD_NUMBER: _ClassVar[int]
    seq: int
    def __init__(self, seq: _Optional[int] = ...) -> None: ...

class Ended(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Reconnect(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Refused(_message.Message):
    __slots__ = ("code", "message", "retryable")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    code: RefusalCode
    message: str
    retryable: bool
    def __init__(self, code: _Optional[_Union[RefusalCode, str]] = ..., message: _Optional[str] = ..., retryable: _Optional[bool] = ...) -> None: ...
