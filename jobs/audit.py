"""The data set of a run checked: ray job submit --working-dir . -- python jobs/audit.py RUN.

Takes the arguments of `cnnvis audit`; it runs on the driver.
"""

import sys

from cnnvis_ray.cli import leave, main

if __name__ == "__main__":
    leave(main(["audit", *sys.argv[1:]]))
