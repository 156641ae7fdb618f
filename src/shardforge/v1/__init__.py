"""The public gRPC API as messages: `database_pb2` and its stubs are made from proto/database.proto (`make proto`)."""
