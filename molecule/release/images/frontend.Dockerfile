# Versions of the support desk's page for the tests of releases.
ARG BASE
FROM support-desk/frontend:$BASE AS good
ARG VERSION
ENV APP_VERSION=$VERSION

# A page that has changed names its assets otherwise, and no longer has those before.
FROM good AS other-assets
USER root
RUN cd /usr/share/nginx/html && for file in assets/*; do \
      sed -i "s|${file%.*}|${file%.*}-other|g" index.html && mv "$file" "${file%.*}-other.${file##*.}"; \
    done
USER 101:101
