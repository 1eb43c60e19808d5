"""Nodes, by the import path that the original has."""

from __future__ import annotations

from smallpond.logical.base_node import Context, Node
from smallpond.logical.partition_by_value import (
    HashPartitionNode,
    RangePartitionNode,
    ShuffleNode,
)
from smallpond.logical.partition_nodes import (
    DataSetPartitionNode,
    EvenlyDistributedPartitionNode,
    LoadPartitionedDataSetNode,
    PartitionNode,
    RepeatPartitionNode,
    UserDefinedPartitionNode,
    UserPartitionedDataSourceNode,
)
from smallpond.logical.python_nodes import (
    ArrowBatchNode,
    ArrowComputeNode,
    ArrowStreamNode,
    PandasBatchNode,
    PandasComputeNode,
    PythonScriptNode,
)
from smallpond.logical.sinks import DataSinkNode, RootNode
from smallpond.logical.table_nodes import (
    ConsolidateNode,
    DataSourceNode,
    LimitNode,
    ProjectionNode,
    SqlEngineNode,
    UnionNode,
)
from smallpond.logical.tree import LogicalPlan
from smallpond.logical.visitor import LogicalPlanVisitor

__all__ = [
    "ArrowBatchNode",
    "ArrowComputeNode",
    "ArrowStreamNode",
    "ConsolidateNode",
    "Context",
    "DataSetPartitionNode",
    "DataSinkNode",
    "DataSourceNode",
    "EvenlyDistributedPartitionNode",
    "HashPartitionNode",
    "LimitNode",
    "LoadPartitionedDataSetNode",
    "LogicalPlan",
    "LogicalPlanVisitor",
    "Node",
    "PandasBatchNode",
    "PandasComputeNode",
    "PartitionNode",
    "ProjectionNode",
    "PythonScriptNode",
    "RangePartitionNode",
    "RepeatPartitionNode",
    "RootNode",
    "ShuffleNode",
    "SqlEngineNode",
    "UnionNode",
    "UserDefinedPartitionNode",
    "UserPartitionedDataSourceNode",
]
