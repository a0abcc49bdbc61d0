"""What is kept of every prediction, and what came true of it.

Written by a worker, in this order:

    record.py recorder.py the last answers, in memory
    offer.py packing.py no_log.py
                          what the pipeline hands over, and how it is kept until it is written
    row_plan.py schema.py gathered.py columns.py arrow_arrays.py
                          what a version's rows look like, and many of them as Arrow columns
    prediction_log.py segment.py ledger.py
                          the thread, its files, its counts

Looked after by one process a node:

    keeper.py parquet.py retention.py removed.py
                          segments to Parquet, what goes for age or size
    layout.py lock.py writers.py
                          where what is, who may move it, who is gone

Read:

    reading.py inventory.py tailing.py row_document.py verifying.py
                          no row twice, none left out
    query*.py views.py statements.py plain_names.py
                          SQL, in a process of its own
    erasing*.py erasures.py subjects.py
                          a subject's rows, and the receipt
    shipping/             copies elsewhere

Labels:

    label.py labels.py label_states.py outcomes.py
                          what came true: taken, kept, told apart
    joined.py counted.py losses.py arms.py
                          joined with predictions
"""
