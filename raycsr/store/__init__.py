"""The one storage layer: files below a location, local or s3://, by one code path.

Images, checkpoints, results, sweeps and histories are all read and written here: one patience, one vocabulary of
errors, one atomic write, one resolution of endpoint, region, profile and credentials (boto3's).
"""

from raycsr.store.errors import AccessDenied, FileMissing, FileTooLarge
from raycsr.store.files import File
from raycsr.store.store import PATIENCE, READERS, SeekableFile, Store

__all__ = ["PATIENCE", "READERS", "AccessDenied", "File", "FileMissing", "FileTooLarge", "SeekableFile", "Store"]
