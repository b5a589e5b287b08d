# Locust with the users of loadtests/, on top of the service's image, whose libraries make the pictures that they send.
ARG IMAGE=prunepool
FROM ${IMAGE}
USER root
COPY requirements-dev.lock /build/
# In the locked version; what it needs besides is taken as it comes: this image serves nobody.
RUN /usr/local/bin/pip --python /opt/venv/bin/python install --quiet --no-cache-dir "$(sed -nE 's/^(locust==[^ ;]+).*/\1/p' /build/requirements-dev.lock)"
COPY loadtests /loadtests
USER 10001:10001
HEALTHCHECK NONE
EXPOSE 8089
ENTRYPOINT ["locust", "--locustfile", "/loadtests/locustfile.py"]
CMD ["--host", "http://prunepool:8000"]
