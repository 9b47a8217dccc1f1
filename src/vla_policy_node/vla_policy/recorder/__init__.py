"""A contract and serialised messages in, whole episodes on disk out. For the recorder node and `recover_episode`; no ROS."""
