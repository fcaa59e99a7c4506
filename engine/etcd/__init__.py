"""A client of etcd: the messages of its API, what its errors mean, and the connection. It knows no keys of ours."""
