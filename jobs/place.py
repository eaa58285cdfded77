"""A night on the frozen map: ray job submit ... python jobs/place.py RUN --source X --name Y.

Takes the arguments of `cnnvis place`; the cluster is the job's own.
"""

import sys

from cnnvis_ray.cli import leave, main

if __name__ == "__main__":
    leave(main(["place", *sys.argv[1:]]))
