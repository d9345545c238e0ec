#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Make the public headers of a release to come: every struct that begins with its size has grown.

usage: grow.py OUTPUT_FOLDER HEADER...
"""
import os
import re
import sys

SIZED = re.compile(r"^(struct slu_\w+ \{\n\tsize_t size;.*?)^(\};)", re.MULTILINE | re.DOTALL)
FIELD = "\tuint64_t grown[2];\n"


def grow(text):
    return SIZED.sub(lambda found: found[1] + FIELD + found[2], text)


def main():
    folder, *headers = sys.argv[1:]
    for header in headers:
        with open(header, encoding="utf-8") as file:
            text = grow(file.read())
        with open(os.path.join(folder, os.path.basename(header)), "w", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    main()
