# Versions of a backend for the tests of releases: the support desk's under another version, small ones, and some that misbehave.
ARG BASE
FROM support-desk/backend:$BASE AS good
ARG VERSION
ENV APP_VERSION=$VERSION

# Faults are tried with a product that starts at once, and has nothing to migrate.
FROM good AS small
USER root
COPY small.py ./
RUN printf 'print("nothing to migrate")\n' >support_desk/migrate.py && : >support_desk/__init__.py
COPY idle.py support_desk/worker.py
USER 10001:10001
CMD ["python3", "small.py"]

FROM small AS never-healthy
CMD ["sleep", "infinity"]

FROM small AS dies
CMD ["python3", "small.py", "dies"]

FROM small AS worker-dies
USER root
RUN printf 'raise SystemExit("no broker")\n' >support_desk/worker.py
USER 10001:10001

FROM small AS errors
CMD ["python3", "small.py", "errors"]

FROM small AS sours
CMD ["python3", "small.py", "sours"]

FROM small AS unready
CMD ["python3", "small.py", "unready"]

FROM small AS other-version
ENV APP_VERSION=0.0.0

FROM small AS migration-fails
USER root
RUN printf 'raise SystemExit("relation customers has no column fax")\n' >support_desk/migrate.py
USER 10001:10001

FROM small AS migration-hangs
USER root
RUN printf 'import time\nprint("waiting for a lock on customers", flush=True)\ntime.sleep(3600)\n' >support_desk/migrate.py
USER 10001:10001

# Too large for the disk that the test leaves; random, so that no compression helps.
FROM small AS large
USER root
RUN head -c 24000000 /dev/urandom >/app/large
USER 10001:10001
