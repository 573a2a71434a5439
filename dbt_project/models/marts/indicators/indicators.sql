{{ indicators_function() }}
