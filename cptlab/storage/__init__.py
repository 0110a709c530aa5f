"""Files on disk. Which module to use:

- `atomic`: write a file whole, or leave the old one.
- `jsonl`: write and read records, one a line.
- `chunk_store`: cut long work into chunks of records that are kept and shared.
- `journal`: add finished rows to a file, one by one.
- `piece_file`: compute a large binary file piece by piece.
- `run_directory`: open the directory of a run, or go on in one that was killed.
- `locks`: keep two processes from doing the same work.
- `digests`: name work by what it depends on.
"""
