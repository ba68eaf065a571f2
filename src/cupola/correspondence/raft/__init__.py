"""Optical flow and disparity by RAFT, large or small, and by SMURF, which is RAFT trained without labels."""

from cupola.correspondence.raft.provider import RaftCorrespondence

__all__ = ["RaftCorrespondence"]
