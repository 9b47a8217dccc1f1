"""A contract and serialised messages in, whole episodes on disk out. For the recorder node; imports no ROS."""
