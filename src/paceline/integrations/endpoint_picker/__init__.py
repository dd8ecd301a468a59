"""An endpoint picker for Envoy and the gateways of Kubernetes: a gateway asks it, for each request, to which endpoint
that goes (https://github.com/kubernetes-sigs/gateway-api-inference-extension, proposal 004).

It decides as Paceline's own gateway does, writes the strategy into the request's body, and learns from the answer,
which passes by. The way of a request: ``server.py`` takes Envoy's messages, ``wire_format.py`` reads them,
``stream.py`` follows one exchange, ``picking.py`` decides, and ``carried.py`` is a request up to its end.
``sources.py`` and what stands behind it find the endpoints.
"""
