"""The public gRPC API: `gateway` lets its connections in, `service` answers calls; the first one loads gRPC."""
