"""Traffic that a real gateway recorded, and what the code made of it when it was recorded.

``requests.sqlite.gz`` is the decision log of two gateways, one after the other; :mod:`recorded.ask` sent the traffic.
The first was ``paceline serve`` as it comes: the bundled model, a plain and an n-gram lane (prompts 0 to 47). The
second had other settings: a plain lane, n-gram lanes of 4 and 12 tokens, exploration 0.03, and one lane with a model of
another name (prompts 44 to 119). Each engine was the embedded llama.cpp, with one thread.

``expected.json.gz`` is what :mod:`recorded.behaviour` made of that log. After a change that is meant to change it:

    python -m tests.recorded.make
"""
