"""Folders in buckets (gs://BUCKET/PATH), where a run, its model or its problems may lie.

client asks the store. places says which folder in a bucket a local folder stands for. sources
fetches models and problems. Needs the extra `gcs`, which is imported where a bucket is named.
workdir/spool.py keeps a work directory in a bucket.
"""
