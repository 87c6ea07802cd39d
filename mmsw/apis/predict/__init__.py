"""Predicting files with a trained model: images, folders, videos, a camera."""

from .plan import SAVES, PredictOptions, PredictPlan, plan_prediction
from .progress import PredictReport
from .run import predict_files, run_plan

__all__ = [
    'SAVES',
    'PredictOptions',
    'PredictPlan',
    'PredictReport',
    'plan_prediction',
    'predict_files',
    'run_plan',
]
