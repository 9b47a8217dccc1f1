"""Robot policies from vision-language models: the library, free of ROS.

Nodes, trainers and simulator bridges import it; it imports none of them.
"""

__version__ = "0.1.0"
