"""The verbs of `storage.protocol` on an object store, by the steps of s3.md."""
