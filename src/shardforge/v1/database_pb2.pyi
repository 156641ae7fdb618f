from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NullValue(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NULL_VALUE: _ClassVar[NullValue]

class IsolationLevel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ISOLATION_LEVEL_UNSPECIFIED: _ClassVar[IsolationLevel]
    ISOLATION_LEVEL_READ_COMMITTED: _ClassVar[IsolationLevel]
    ISOLATION_LEVEL_REPEATABLE_READ: _ClassVar[IsolationLevel]
    ISOLATION_LEVEL_SERIALIZABLE: _ClassVar[IsolationLevel]

class ErrorFamily(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_FAMILY_UNSPECIFIED: _ClassVar[ErrorFamily]
    ERROR_FAMILY_CONSENSUS: _ClassVar[ErrorFamily]
    ERROR_FAMILY_STORAGE: _ClassVar[ErrorFamily]
    ERROR_FAMILY_QUERY: _ClassVar[ErrorFamily]
    ERROR_FAMILY_NETWORK: _ClassVar[ErrorFamily]
    ERROR_FAMILY_TRANSACTION: _ClassVar[ErrorFamily]

class Reaction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REACTION_UNSPECIFIED: _ClassVar[Reaction]
    REACTION_FIX_STATEMENT: _ClassVar[Reaction]
    REACTION_RETRY_TRANSACTION: _ClassVar[Reaction]
    REACTION_TRY_AGAIN: _ClassVar[Reaction]
    REACTION_OUTCOME_UNKNOWN: _ClassVar[Reaction]
    REACTION_INTERNAL: _ClassVar[Reaction]
NULL_VALUE: NullValue
ISOLATION_LEVEL_UNSPECIFIED: IsolationLevel
ISOLATION_LEVEL_READ_COMMITTED: IsolationLevel
ISOLATION_LEVEL_REPEATABLE_READ: IsolationLevel
ISOLATION_LEVEL_SERIALIZABLE: IsolationLevel
ERROR_FAMILY_UNSPECIFIED: ErrorFamily
ERROR_FAMILY_CONSENSUS: ErrorFamily
ERROR_FAMILY_STORAGE: ErrorFamily
ERROR_FAMILY_QUERY: ErrorFamily
ERROR_FAMILY_NETWORK: ErrorFamily
ERROR_FAMILY_TRANSACTION: ErrorFamily
REACTION_UNSPECIFIED: Reaction
REACTION_FIX_STATEMENT: Reaction
REACTION_RETRY_TRANSACTION: Reaction
REACTION_TRY_AGAIN: Reaction
REACTION_OUTCOME_UNKNOWN: Reaction
REACTION_INTERNAL: Reaction

class Value(_message.Message):
    __slots__ = ("null_value", "bool_value", "int64_value", "double_value", "string_value", "bytes_value", "typed_value")
    NULL_VALUE_FIELD_NUMBER: _ClassVar[int]
    BOOL_VALUE_FIELD_NUMBER: _ClassVar[int]
    INT64_VALUE_FIELD_NUMBER: _ClassVar[int]
    DOUBLE_VALUE_FIELD_NUMBER: _ClassVar[int]
    STRING_VALUE_FIELD_NUMBER: _ClassVar[int]
    BYTES_VALUE_FIELD_NUMBER: _ClassVar[int]
    TYPED_VALUE_FIELD_NUMBER: _ClassVar[int]
    null_value: NullValue
    bool_value: bool
    int64_value: int
    double_value: float
    string_value: str
    bytes_value: bytes
    typed_value: TypedValue
    def __init__(self, null_value: _Optional[_Union[NullValue, str]] = ..., bool_value: _Optional[bool] = ..., int64_value: _Optional[int] = ..., double_value: _Optional[float] = ..., string_value: _Optional[str] = ..., bytes_value: _Optional[bytes] = ..., typed_value: _Optional[_Union[TypedValue, _Mapping]] = ...) -> None: ...

class TypedValue(_message.Message):
    __slots__ = ("type", "text")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    type: str
    text: str
    def __init__(self, type: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class Column(_message.Message):
    __slots__ = ("name", "type", "type_oid")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    TYPE_OID_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: str
    type_oid: int
    def __init__(self, name: _Optional[str] = ..., type: _Optional[str] = ..., type_oid: _Optional[int] = ...) -> None: ...

class Row(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedCompositeFieldContainer[Value]
    def __init__(self, values: _Optional[_Iterable[_Union[Value, _Mapping]]] = ...) -> None: ...

class Notice(_message.Message):
    __slots__ = ("severity", "sqlstate", "message", "detail", "hint")
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    SQLSTATE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    severity: str
    sqlstate: str
    message: str
    detail: str
    hint: str
    def __init__(self, severity: _Optional[str] = ..., sqlstate: _Optional[str] = ..., message: _Optional[str] = ..., detail: _Optional[str] = ..., hint: _Optional[str] = ...) -> None: ...

class QueryResult(_message.Message):
    __slots__ = ("columns", "rows", "command_tag", "rows_affected")
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COMMAND_TAG_FIELD_NUMBER: _ClassVar[int]
    ROWS_AFFECTED_FIELD_NUMBER: _ClassVar[int]
    columns: _containers.RepeatedCompositeFieldContainer[Column]
    rows: _containers.RepeatedCompositeFieldContainer[Row]
    command_tag: str
    rows_affected: int
    def __init__(self, columns: _Optional[_Iterable[_Union[Column, _Mapping]]] = ..., rows: _Optional[_Iterable[_Union[Row, _Mapping]]] = ..., command_tag: _Optional[str] = ..., rows_affected: _Optional[int] = ...) -> None: ...

class ExecuteQueryRequest(_message.Message):
    __slots__ = ("database", "sql", "parameters", "settings", "max_result_bytes")
    class SettingsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    SQL_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    MAX_RESULT_BYTES_FIELD_NUMBER: _ClassVar[int]
    database: str
    sql: str
    parameters: _containers.RepeatedCompositeFieldContainer[Value]
    settings: _containers.ScalarMap[str, str]
    max_result_bytes: int
    def __init__(self, database: _Optional[str] = ..., sql: _Optional[str] = ..., parameters: _Optional[_Iterable[_Union[Value, _Mapping]]] = ..., settings: _Optional[_Mapping[str, str]] = ..., max_result_bytes: _Optional[int] = ...) -> None: ...

class ExecuteQueryResponse(_message.Message):
    __slots__ = ("result", "notices")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    NOTICES_FIELD_NUMBER: _ClassVar[int]
    result: QueryResult
    notices: _containers.RepeatedCompositeFieldContainer[Notice]
    def __init__(self, result: _Optional[_Union[QueryResult, _Mapping]] = ..., notices: _Optional[_Iterable[_Union[Notice, _Mapping]]] = ...) -> None: ...

class Statement(_message.Message):
    __slots__ = ("sql", "parameters")
    SQL_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    sql: str
    parameters: _containers.RepeatedCompositeFieldContainer[Value]
    def __init__(self, sql: _Optional[str] = ..., parameters: _Optional[_Iterable[_Union[Value, _Mapping]]] = ...) -> None: ...

class ExecuteTransactionRequest(_message.Message):
    __slots__ = ("database", "statements", "isolation_level", "read_only", "commit_key", "settings", "max_result_bytes", "max_retries")
    class SettingsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    STATEMENTS_FIELD_NUMBER: _ClassVar[int]
    ISOLATION_LEVEL_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    COMMIT_KEY_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    MAX_RESULT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_RETRIES_FIELD_NUMBER: _ClassVar[int]
    database: str
    statements: _containers.RepeatedCompositeFieldContainer[Statement]
    isolation_level: IsolationLevel
    read_only: bool
    commit_key: str
    settings: _containers.ScalarMap[str, str]
    max_result_bytes: int
    max_retries: int
    def __init__(self, database: _Optional[str] = ..., statements: _Optional[_Iterable[_Union[Statement, _Mapping]]] = ..., isolation_level: _Optional[_Union[IsolationLevel, str]] = ..., read_only: _Optional[bool] = ..., commit_key: _Optional[str] = ..., settings: _Optional[_Mapping[str, str]] = ..., max_result_bytes: _Optional[int] = ..., max_retries: _Optional[int] = ...) -> None: ...

class ExecuteTransactionResponse(_message.Message):
    __slots__ = ("results", "notices", "committed_before", "retries")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    NOTICES_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_BEFORE_FIELD_NUMBER: _ClassVar[int]
    RETRIES_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[QueryResult]
    notices: _containers.RepeatedCompositeFieldContainer[Notice]
    committed_before: bool
    retries: int
    def __init__(self, results: _Optional[_Iterable[_Union[QueryResult, _Mapping]]] = ..., notices: _Optional[_Iterable[_Union[Notice, _Mapping]]] = ..., committed_before: _Optional[bool] = ..., retries: _Optional[int] = ...) -> None: ...

class GetClusterStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetClusterStatusResponse(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: str
    def __init__(self, json: _Optional[str] = ...) -> None: ...

class GetMetricsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetMetricsResponse(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class JoinClusterRequest(_message.Message):
    __slots__ = ("token", "address", "version", "node_id")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    token: str
    address: str
    version: str
    node_id: int
    def __init__(self, token: _Optional[str] = ..., address: _Optional[str] = ..., version: _Optional[str] = ..., node_id: _Optional[int] = ...) -> None: ...

class NodeAddress(_message.Message):
    __slots__ = ("node_id", "address")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    address: str
    def __init__(self, node_id: _Optional[int] = ..., address: _Optional[str] = ...) -> None: ...

class JoinClusterResponse(_message.Message):
    __slots__ = ("node_id", "cluster_id", "cluster_name", "nodes")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_NAME_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    cluster_id: str
    cluster_name: str
    nodes: _containers.RepeatedCompositeFieldContainer[NodeAddress]
    def __init__(self, node_id: _Optional[int] = ..., cluster_id: _Optional[str] = ..., cluster_name: _Optional[str] = ..., nodes: _Optional[_Iterable[_Union[NodeAddress, _Mapping]]] = ...) -> None: ...

class LeaveClusterRequest(_message.Message):
    __slots__ = ("node_id",)
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    node_id: int
    def __init__(self, node_id: _Optional[int] = ...) -> None: ...

class LeaveClusterResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DatabaseError(_message.Message):
    __slots__ = ("sqlstate", "message", "detail", "hint", "family", "reaction", "retryable", "position", "schema", "table", "column", "datatype", "constraint", "statement")
    SQLSTATE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    REACTION_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    DATATYPE_FIELD_NUMBER: _ClassVar[int]
    CONSTRAINT_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    sqlstate: str
    message: str
    detail: str
    hint: str
    family: ErrorFamily
    reaction: Reaction
    retryable: bool
    position: int
    schema: str
    table: str
    column: str
    datatype: str
    constraint: str
    statement: int
    def __init__(self, sqlstate: _Optional[str] = ..., message: _Optional[str] = ..., detail: _Optional[str] = ..., hint: _Optional[str] = ..., family: _Optional[_Union[ErrorFamily, str]] = ..., reaction: _Optional[_Union[Reaction, str]] = ..., retryable: _Optional[bool] = ..., position: _Optional[int] = ..., schema: _Optional[str] = ..., table: _Optional[str] = ..., column: _Optional[str] = ..., datatype: _Optional[str] = ..., constraint: _Optional[str] = ..., statement: _Optional[int] = ...) -> None: ...
