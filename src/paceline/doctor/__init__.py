"""What is wrong with an installation, and what mends it: a list of looks, each with one concern.

``scene.py`` is what is looked at, ``finding.py`` what is found; the looks stand by subject, and ``examine.py`` has them
all.
"""
