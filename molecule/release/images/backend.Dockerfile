# Versions of the support desk's backend for the tests of releases: one that works, and some that do not.
ARG BASE
FROM support-desk/backend:$BASE AS good
ARG VERSION
ENV APP_VERSION=$VERSION

FROM good AS never-healthy
CMD ["sleep", "infinity"]

FROM good AS misbehaving
COPY misbehaving.py ./

FROM misbehaving AS dies
CMD ["uvicorn", "--factory", "misbehaving:dying", "--host", "0.0.0.0", "--port", "8000"]

FROM misbehaving AS errors
CMD ["uvicorn", "--factory", "misbehaving:failing", "--host", "0.0.0.0", "--port", "8000"]

FROM good AS migration-fails
USER root
RUN printf 'raise SystemExit("relation customers has no column fax")\n' >support_desk/migrate.py
USER 10001:10001

FROM good AS migration-hangs
USER root
RUN printf 'import time\nprint("waiting for a lock on customers", flush=True)\ntime.sleep(3600)\n' >support_desk/migrate.py
USER 10001:10001

# Too large for the disk that the test leaves; random, so that no compression helps.
FROM good AS large
USER root
RUN head -c 24000000 /dev/urandom >/app/large
USER 10001:10001
