"""Image sets by name, folder, archive or array file; their splits; and the disjoint parts of a study."""

from modelward.data.known import DataInfo, data_folder, list_data
from modelward.data.sets import Splits, load_data
from modelward.data.study import Study, study

__all__ = ["DataInfo", "Splits", "Study", "data_folder", "list_data", "load_data", "study"]
