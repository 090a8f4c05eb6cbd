"""What was measured, and tables of it. Imports neither torch nor our other packages: tables render on a laptop.

* `records`: one measured cell is one JSON file, written completely or not at all.
* `union`: the records of several folders.
* `certificates`: the laws by which an attention was tested, one JSON file per attention.
* `correctness`: which images a model got right, one bit per image, and of which classes they are.
* `sheets`: a table as text.
* `tables`: what is made of them, with pandas, which jobs need not load.
"""

from results.certificates import (
    Certificate,
    Verdict,
    certificate_summary,
    certificates,
    read_certificate,
    write_certificate,
)
from results.correctness import ImageList, read_correct, read_image_list, write_correct, write_image_list
from results.records import (
    SOURCE,
    Record,
    model_of,
    read,
    read_all,
    read_json,
    recordable,
    replacing,
    write,
    write_bytes,
    write_files,
    write_text,
)
from results.union import Union, read_folders

__all__ = [
    "SOURCE",
    "Certificate",
    "ImageList",
    "Record",
    "Union",
    "Verdict",
    "certificate_summary",
    "certificates",
    "model_of",
    "read",
    "read_all",
    "read_certificate",
    "read_correct",
    "read_folders",
    "read_image_list",
    "read_json",
    "recordable",
    "replacing",
    "write",
    "write_bytes",
    "write_certificate",
    "write_correct",
    "write_files",
    "write_image_list",
    "write_text",
]
