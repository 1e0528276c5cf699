"""The plumbing under the scripts, one concern per module. It defines no flags and prints no results.

Each folder uses only those above it here. Beside them `preflight` finds out before the pipeline's first stage what
would stop it hours later: it alone is run as a program, and imports the scripts, for their flags and checks. LOG.md, in
comments here and in the scripts, is tests/benchmarks/LOG.md, and what stands behind it begins the title of a section.

running
    script          how a script ends: on bad input, and when it is told to stop
    signals         what tells it to stop, and what must not be interrupted
    errors          what bad input is
    files           written whole or not at all, read with a clear error
    flag_types      checked values of flags
    hub             whether the model and data hub answers, and its data sets
    tables          aligned columns, excerpts of texts
    sqlite_wal      sqlite files that several processes use

corpus
    sources         rows of MedQuAD or other data sets, from the hub or files
    chunking        answers cut into passages
    normalising     which texts count as the same, and which name a topic
    topics          which topics belong together, and what is boilerplate
    artifacts       the records that the stages pass on

embedding
    models          finding and loading one, and what determines its embeddings
    model_files     what a saved model's training.json tells, and whether its folder is whole
    device          one GPU or the CPU
    memory          how much is free, and how much training takes
    encoder         each text embedded once per weights
    search          exact search by the cosine

judging
    judge           what a judge is, and the one that knows the answers
    candidates      what was retrieved for a query, with ranks and grades
    llm_judge       the one behind OpenAI-compatible servers
    judge_requests  what is sent to a server: prompt, cut passage, constraint
    judge_answers   grades read from its answers
    endpoints       requests, retries, pauses, servers that go and come back
    faults          what went wrong with one request
    probing         what a server is and can do
    judgment_store  every judgment ever paid for
    batch_files     judging without a live server
    judge_report    what a judge found, will ask and took: in words, and for JSON

measuring
    metrics         MRR, DCG and others, intervals of means and gains
    agreement       how far two graders agree: kappa, AUC
    graded          questions whose answers people graded
    judge_quality   calibration of a judge's probabilities, and what biases it

learning
    mining          training examples, and how they add up over iterations
    recipe          what fine-tuning is given
    scale           how sharply the loss tells answers from others
    training        the loss and the trainer
    averaging       means of models
    validation      how good a model is, what it forgot, and which is the best
    model_card      a saved model's README.md
    run_folder      the folder of a run: whose it is, and what is finished
"""
