"""The verbs of `storage.protocol` on an object store, by the steps of docs/design/bucket.md."""
