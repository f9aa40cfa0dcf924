"""Every documented path of version 0.1 is where it was; more may be added, none may go."""

import importlib
import subprocess
import sys

import pytest

PATHS = {
    "flaxapps": """
        Compiled Input Model ModelInfo Network compile explain export fold_batch_norm get_model image layers
        list_models load_exported load_model model_info optimize predict rewrite save_model
    """,
    "flaxapps.layers": """
        Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D
        AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add
        AdditiveAttention AlphaDropout Attention AugMix Augmentation AutoContrast Average AveragePooling1D
        AveragePooling2D AveragePooling3D BatchNormalization Bfloat16Conv2D CategoryEncoding CenterCrop
        ChannelsFirst Concatenate Constant Conv1D Conv1DTranspose Conv2D Conv2DTranspose Conv3D
        Conv3DTranspose Cropping1D Cropping2D Cropping3D CustomScaleLayer CutMix Dense DepthwiseConv1D
        DepthwiseConv2D Discretization Dot Dropout ELU EinsumDense Embedding Equalization Flatten Functional
        GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D
        GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization GroupedQueryAttention
        Identity ImageByImage Input InputLayer LayerNormalization LayerScale LeakyReLU Masking MaxPooling1D
        MaxPooling2D MaxPooling3D Maximum Minimum MixUp MultiHeadAttention Multiply Noise Normalization
        OPERATIONS Operation PReLU Permute Pipeline RMSNormalization RandAugment RandomBrightness
        RandomColorDegeneration RandomColorJitter RandomContrast RandomCrop RandomElasticTransform
        RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHue RandomInvert RandomPerspective
        RandomPosterization RandomRotation RandomSaturation RandomSharpness RandomShear RandomTranslation
        RandomZoom ReLU RepeatVector Rescaling Reshape Resizing SeparableConv1D SeparableConv2D Sequential
        Slice Slot Softmax Solarization SpatialDropout1D SpatialDropout2D SpatialDropout3D
        SpectralNormalization StochasticDepth Subtract TimeDistributed TimeDistributedModel UnitNormalization
        UpSampling1D UpSampling2D UpSampling3D WinogradConv2D ZeroPadding1D ZeroPadding2D ZeroPadding3D
        register register_activation registered
    """,
    "flaxapps.image": """
        ImageError array_to_img img_to_array load_img save_img
    """,
    "flaxapps.explain": """
        grad_cam integrated_gradients occlusion
    """,
    "flaxapps.registry": """
        ModelInfo build_model get_model list_models model_info
    """,
    "flaxapps.model": """
        Model
    """,
    "flaxapps.demo": """
        Classified DemoData classify compute_logits fetch_demo run_demo write_contact_sheet
    """,
    "flaxapps.train": """
        ArrayDataset Augmentation CSVLog CheckpointError CheckpointFolder Computation Dataset Devices
        EarlyStopping EpochEnd FeatureCache FeatureDataset FitResult Interrupted Mean Objective
        ProgressDisplay StepEnd TensorBoard TrainState TrainingError accuracy add_sums as_dataset
        binary_crossentropy categorical_crossentropy compute_features confusion_matrix create_state eval_step
        evaluate fit frozen_layers image_folder image_table last_activation load_class_names make_objective
        merge_params param_labels save_class_names sparse_categorical_crossentropy split_at_frozen
        split_params summarise top_k_accuracy train_step trainable_mask without_last_activation write_csv
    """,
    "weight_port": """
        DownloadError WeightError fetch load_weights read_config save_weights
    """,
    "flaxapps.cli": """
        main
    """,
    "flaxapps.xception": """
        Xception preprocess_input decode_predictions
    """,
    "flaxapps.vgg16": """
        VGG16 preprocess_input decode_predictions
    """,
    "flaxapps.vgg19": """
        VGG19 preprocess_input decode_predictions
    """,
    "flaxapps.resnet50": """
        ResNet50 preprocess_input decode_predictions
    """,
    "flaxapps.inception_v3": """
        InceptionV3 preprocess_input decode_predictions
    """,
}


@pytest.mark.parametrize("module", PATHS)
def test_public_names_are_there(module):
    found = importlib.import_module(module)
    assert [name for name in PATHS[module].split() if not hasattr(found, name)] == []


@pytest.mark.parametrize("module", ["flaxapps", "weight_port"])
def test_packages_run_as_commands(module):
    run = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True)
    assert "inspect" in run.stdout
